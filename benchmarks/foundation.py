"""Every measurement of stage 2, the foundation VLA, in one command: `make bench-foundation`.

Sections: `decoding` (time, and equality with transformers' `generate`), `grammar` (share of valid answers), `step`
(time of a training step over that of the bare model), `accuracy` (both backends on six tasks), `language` (effect of
the instruction on tasks that share a scene). Each section writes its part of `outputs/benchmarks/foundation.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import foundation_decoding, foundation_step
from benchmarks.laq import TASKS, demonstrations
from benchmarks.laq import BenchConfig as LAQBenchConfig
from benchmarks.running import require_known, run_benchmark, run_command, run_sections, side_by_side, train_laq
from hlrp.data.labelled_frames import OrderedBatches
from hlrp.data.observation_sources import HeldOut, ObservationConfig, open_labelled
from hlrp.foundation.backends import QwenVLChatConfig
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation
from hlrp.measure.language import language_metrics, swapped_instructions
from hlrp.report.metrics import FOUNDATION_METRICS
from hlrp.runtime.tables import table
from hlrp.sim.tasks import task_sentence
from hlrp.storage.files import write_json

SCENES = (("reach-v3", "push-v3", "pick-place-v3"), ("drawer-open-v3", "drawer-close-v3"))
"""Groups of tasks whose first frames look alike: three tasks with a puck on a table, two tasks with a drawer."""
BACKENDS = {"qwen3vl_chat": (), "smol_latent_head": ("--backend.type=smol_latent_head",)}


@dataclass
class BenchConfig:
    """Measure stage 2, the foundation model."""

    output: Path = Path("outputs/benchmarks/foundation.json")
    """JSON file of the results; results of sections that are not run now stay in the file."""
    quick: bool = False
    """Do a tenth of the work (fewer prompts, fewer steps), to see whether everything runs; the results are rough."""
    sections: list[str] = field(default_factory=lambda: ["decoding", "grammar", "step", "accuracy", "language"])
    seeds: int = 3
    """Seeds 0, 1, … of each run of `accuracy`: of the weights, the batches and the held-out episodes."""
    steps: int = 1500
    """Training steps of each run of `accuracy` and `language`."""
    device: str | None = None
    """Device on which decoding is measured: cpu or cuda; default: the best device of this machine."""

    def __post_init__(self) -> None:
        require_known("sections", self.sections, SECTIONS)

    @property
    def runs(self) -> Path:
        """Folder of the trained models."""
        return self.output.parent / ("foundation_quick" if self.quick else "foundation")

    @property
    def training_steps(self) -> int:
        """Optimizer steps of a foundation model."""
        return 150 if self.quick else self.steps


def decoding(config: BenchConfig) -> dict[str, Any]:
    """Measure the seconds of a prefill, of `generate` and of our decoder, and whether both decode the same codes."""
    metrics = foundation_decoding.run(
        device=config.device, repeats=5 if config.quick else 15, prompts=100 if config.quick else 1000
    )
    print(table(["decoding", ""], [[name, str(value)] for name, value in metrics.items()]))
    return metrics


def grammar(config: BenchConfig) -> dict[str, Any]:
    """Count the valid answers that models with random weights sample."""
    metrics = foundation_decoding.grammar(1000 if config.quick else 10_000)
    print(f"{metrics['valid']} of {metrics['total']} answers are valid")
    return metrics


def step(config: BenchConfig) -> float:
    """Measure the time of a training step, divided by that of the bare forward and backward pass."""
    metrics = foundation_step.run(repeats=5 if config.quick else 20)
    print(table(["training step", ""], [[name, f"{value:.3f}"] for name, value in metrics.items()]))
    return metrics["ratio"]


def accuracy(config: BenchConfig) -> dict[str, Any]:
    """Measure the code accuracy of both backends on held-out episodes of six tasks, for several seeds."""
    root, labels = _labelled(config, "six_tasks", episodes=40)
    seeds = range(1 if config.quick else config.seeds)
    outputs = {(name, seed): config.runs / f"accuracy_{name}_{seed}" for seed in seeds for name in BACKENDS}
    side_by_side(
        [
            lambda name=name, seed=seed, output=output: _train(
                config, output, root, labels, f"--seed={seed}", *BACKENDS[name]
            )
            for (name, seed), output in outputs.items()
        ]
    )
    metrics = {f"{name}, seed {seed}": _code_metrics(output) for (name, seed), output in outputs.items()}
    print(_table(metrics))
    return {name: {str(seed): metrics[f"{name}, seed {seed}"] for seed in seeds} for name in BACKENDS}


def language(config: BenchConfig) -> dict[str, Any]:
    """Measure the loss of code accuracy with wrong instructions, on tasks that only the instruction distinguishes."""
    tasks = tuple(task for scene in SCENES for task in scene)
    root, labels = _labelled(config, "shared_scenes", episodes=20, tasks=tasks)
    outputs = {name: config.runs / f"language_{name}" for name in BACKENDS}
    side_by_side([lambda name=name: _train(config, outputs[name], root, labels, *BACKENDS[name]) for name in BACKENDS])
    metrics = {name: _swapped_within_scenes(output, root, labels) for name, output in outputs.items()}
    names = ("changed_share", "accuracy", "swapped_accuracy", "accuracy_drop")
    print(
        table(
            ["backend", *names],
            [[backend, *(f"{values[name]:.3f}" for name in names)] for backend, values in metrics.items()],
        )
    )
    return metrics


def _swapped_within_scenes(model: Path, root: Path, labels: Path) -> dict[str, Any]:
    """Measure held-out frames with the instruction of another task of the same scene."""
    backend = load_foundation(model).backend
    source = open_labelled(
        ObservationConfig(dataset_root=str(root), labels_path=str(labels)),
        HeldOut(share=0.1, frames=1024, seed=0),
        image_size=QwenVLChatConfig().image_size,
        cache_gib=2.0,
        with_vectors=False,
    )
    others = {
        own: other
        for scene in SCENES
        for own, other in swapped_instructions(task_sentence(task) for task in scene).items()
    }
    batches = OrderedBatches([source.held_out], batch_size=64)
    return language_metrics(backend, (one for one in batches if isinstance(one, FoundationBatch)), others).to_dict()


def _labelled(config: BenchConfig, name: str, *, episodes: int, tasks: tuple[str, ...] = TASKS) -> tuple[Path, Path]:
    """Return a recording and its labels, made by a quantizer trained on the recording; both are made only once."""
    laq_config = LAQBenchConfig(output=config.output.with_name("laq.json"), quick=config.quick)
    root = demonstrations(laq_config, name, episodes=episodes, tasks=tasks)
    laq, labels = config.runs / f"laq_{name}", config.runs / f"labels_{name}"
    train_laq(laq, f"--dataset_root={root}", f"--steps={150 if config.quick else 500}")
    if not labels.exists():
        run_command(
            "hlrp.cli.precompute_latent_codes",
            f"--laq_path={laq}",
            f"--dataset_root={root}",
            f"--output_dir={labels}",
            log=labels.with_suffix(".log"),
        )
    return root, labels


def _train(config: BenchConfig, output: Path, root: Path, labels: Path, *flags: str) -> None:
    if output.exists():
        return
    cost = run_command(
        "hlrp.cli.train_foundation",
        f"--dataset_root={root}",
        f"--labels_path={labels}",
        f"--output_dir={output}",
        f"--steps={config.training_steps}",
        *flags,
        log=output.with_suffix(".log"),
    )
    write_json(output / "cost.json", vars(cost))


def _code_metrics(output: Path) -> dict[str, Any]:
    quality = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["quality"]
    slots = len(quality["label_entropy_bits"])
    return {
        "code": quality["decoded_accuracy"],
        "interval": quality["decoded_accuracy_interval"],
        "marginal": quality["constant_guess_accuracy"],
        "last_code": quality["last_code_accuracy"],
        "sequence": quality["exact_sequence_accuracy"],
        "ece": quality["calibration_error"],
        "cross_entropy_bits": sum(quality["cross_entropy_bits"]) / slots,
        "label_entropy_bits": sum(quality["label_entropy_bits"]) / slots,
        "cpu_minutes": json.loads((output / "cost.json").read_text(encoding="utf-8"))["cpu_minutes"],
    }


def _table(metrics: dict[str, dict[str, Any]]) -> str:
    rows = [
        [backend, *(f"{values[key]:.3f}" for key in _COLUMNS), f"{values['cpu_minutes']:.1f}"]
        for backend, values in metrics.items()
    ]
    return table(["backend", *_COLUMNS.values(), "CPU min"], rows)


_COLUMNS = {
    "code": FOUNDATION_METRICS["decoded_accuracy"].name,
    "marginal": FOUNDATION_METRICS["constant_guess_accuracy"].name,
    "last_code": FOUNDATION_METRICS["last_code_accuracy"].name,
    "sequence": FOUNDATION_METRICS["exact_sequence_accuracy"].name,
    "ece": FOUNDATION_METRICS["calibration_error"].name,
    "cross_entropy_bits": "cross-entropy per code (bits)",
    "label_entropy_bits": "entropy of the labels (bits)",
}
"""Columns of the table of `accuracy`: keys in the JSON file and names."""


SECTIONS: dict[str, Callable[[BenchConfig], Any]] = {
    "decoding": decoding,
    "grammar": grammar,
    "step": step,
    "accuracy": accuracy,
    "language": language,
}
_KEYS = {"step": "step_ratio", "language": "language_sensitivity"}
"""Keys in the JSON file of sections whose key is not their name."""


def main(config: BenchConfig) -> None:
    """Run the sections one after the other."""
    run_sections(config.sections, SECTIONS, config, config.output, keys=_KEYS, quick=config.quick)


if __name__ == "__main__":
    run_benchmark(BenchConfig, main)
