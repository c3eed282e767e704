"""The models of the folder `pretrained/`: how they are trained, and which of their files are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hlrp.demo.config import PRETRAINED_TASKS, DemoConfig
from hlrp.demo.evaluation_files import success
from hlrp.demo.pipeline import OUR_POLICY
from hlrp.report.cards.parts import markdown_table
from hlrp.report.cards.policy_card import policy_card
from hlrp.storage.artefacts import read_json
from hlrp.storage.files import new_directory

_KEPT_OUT = ("train_config.json", "tensorboard", "wandb")
"""Files in the folder of a trained model that are not copied: options to resume the training, and files of loggers."""
_MODELS = {"laq": "latent action quantizer", "foundation": "foundation model", "policy": f"policy `{OUR_POLICY}`"}
_FIGURES = {
    "success": "Share of episodes solved",
    "reconstruction": "Held-out frames that the quantizer predicts from frame t and its codes",
    "latent_quality": "How well a linear map predicts the next actions",
    "code_usage": "Use of the codes",
}

_README = """# Trained models

Three small models of one run, {megabytes:.1f} MB together with their cards and pictures. They were trained from random
weights on demonstrations of Meta-World's scripted experts: six tasks, 30 episodes of each, 64 x 64 pixels. `make try`
evaluates the policy on a few episodes; `make pretrained` trains the models again.

{models}

```python
from hlrp import load_foundation, load_laq

laq = load_laq("pretrained/laq").model
vla = load_foundation("pretrained/foundation").backend
```

```bash
lerobot-eval --policy.path=pretrained/policy --env.type=hlrp_metaworld --env.task=button-press-topdown-v3 \\
    --eval.n_episodes=10 --eval.batch_size=5 --eval.use_async_envs=false
```

The models are examples: for a first look, for tests, and as a start for fine-tuning in the same simulator. They were
trained with one camera of one simulated robot; for your robot, train your own models.

{figures}
"""


@dataclass
class PretrainingConfig(DemoConfig):
    """Train the models that `pretrained/` holds: the demo on six tasks, with a smaller LAQ and more policy steps."""

    output_dir: Path = Path("outputs/pretrained")
    """Folder of all results and logs. A second call with the same folder continues where the first call stopped."""
    tasks: list[str] = field(default_factory=PRETRAINED_TASKS.copy)
    """Names of the Meta-World tasks, each once."""
    laq_preset: str = "tiny"
    """Preset of the LAQ's size: debug, tiny, small, base or lapa."""
    policy_steps: int = 1500
    """Optimizer steps of stage 3, the policy."""
    episode_length: int = 200
    """Largest number of steps of an evaluation episode."""

    @property
    def dataset(self) -> Path:
        """Folder of the recorded demonstrations; the model cards name it."""
        return self.output_dir / "metaworld_six_tasks"


def keep_models(config: DemoConfig, folder: Path, plots: Mapping[str, bytes]) -> None:
    """Copy the models of a finished run with their cards to `folder`, which is replaced.

    Args:
        config: Options of the run.
        folder: Folder to write.
        plots: PNG files of the run, as `hlrp.demo.results.draw_plots` returns them.

    Raises:
        FileNotFoundError: If the run is not finished.
        FileExistsError: If `folder` exists and holds other files.
    """
    report = read_json(config.output_dir / "report.json")
    trained = {
        "laq": config.laq,
        "foundation": config.foundation,
        "policy": config.training(OUR_POLICY) / "checkpoints" / "last" / "pretrained_model",
    }
    with new_directory(folder, replaces=("README.md", "figures", *trained)) as new:
        for name, source in trained.items():
            shutil.copytree(source, new / name, ignore=shutil.ignore_patterns(*_KEPT_OUT))
        evaluation = success(config.evaluation(OUR_POLICY) / "eval_info.json")
        (new / "policy" / "metrics.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
        (new / "policy" / "README.md").write_text(_policy_card(config, evaluation), encoding="utf-8")
        (new / "figures").mkdir()
        for name in _FIGURES:
            (new / "figures" / f"{name}.png").write_bytes(plots[name])
        (new / "README.md").write_text(_readme(new, report), encoding="utf-8")


def _policy_card(config: DemoConfig, evaluation: dict[str, Any]) -> str:
    usage = (
        "lerobot-eval --policy.path=pretrained/policy --env.type=hlrp_metaworld \\\n"
        f"    --env.task={config.tasks[0]} --eval.n_episodes=10 --eval.batch_size=5 --eval.use_async_envs=false"
    )
    facts = {
        "dataset": config.dataset.name,
        "episodes": config.episodes_per_task * len(config.tasks),
        "labelled episodes": "all",
        "steps": config.policy_steps,
        "batch size": config.batch_size,
        "seed": config.seed,
    }
    return policy_card(OUR_POLICY, evaluation, usage=usage, sources=[config.dataset.name], facts=facts)


def _readme(folder: Path, report: dict[str, Any]) -> str:
    laq, foundation, policy = report["laq"], report["foundation"], report["policies"][OUR_POLICY]
    low, high = policy["interval"]
    right, guess = foundation["decoded_accuracy"], foundation["constant_guess_accuracy"]
    measured = {
        "laq": f"probe R² of codes {laq['probe_r2']:.2f}, gain over the frame {laq['probe_gain']:.2f}",
        "foundation": f"{right:.0%} of held-out codes right; the best constant guess {guess:.0%}",
        "policy": f"{policy['success_rate']:.0%} of {policy['episodes']} episodes solved ({low:.0%} … {high:.0%})",
    }
    rows = [
        [f"[`{name}/`]({name}/README.md)", what, f"{_megabytes(folder / name):.1f} MB", measured[name]]
        for name, what in _MODELS.items()
    ]
    return _README.format(
        megabytes=_megabytes(folder),
        models=markdown_table(["folder", "model", "size", "measured"], rows),
        figures="\n\n".join(f"![{text}](figures/{name}.png)" for name, text in _FIGURES.items()),
    )


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
