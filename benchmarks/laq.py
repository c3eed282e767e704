"""Every measurement of stage 1, the latent action quantizer, in one command: `make bench-laq`.

Sections: `meta_world` (quality over seeds), `collapse` (collapsed codebooks of every quantizer), `nuisance` (whether
codes follow the robot or a nuisance), `throughput` (training speed beside LAPA's code), `loader` (speed of the clip
loader beside the bare video decoder), `robot` (quality on a real robot's recording), `drawn_tasks` (quality on eight
randomly chosen tasks), `causes` (what the loss of R² by codes on these tasks depends on), `sources` (whether the codes
of one quantizer mean the same on two datasets and a folder of films) and `ranking` (which metric of the card predicts
the success of policies; left out unless named, since it takes hours). Each section writes its part of
`outputs/benchmarks/laq.json` when it is done; models that were trained earlier are used again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import (
    laq_causes,
    laq_collapse,
    laq_loader,
    laq_nuisance,
    laq_ranking,
    laq_sources,
    laq_tasks,
    laq_throughput,
)
from benchmarks.running import require_known, run_benchmark, run_command, run_sections, side_by_side, train_laq
from hlrp.runtime.checks import require_numbers
from hlrp.runtime.tables import table

TASKS = (
    "button-press-topdown-v3",
    "drawer-close-v3",
    "window-open-v3",
    "window-close-v3",
    "door-open-v3",
    "plate-slide-side-v3",
)
"""Six tasks whose experts keep the gripper's command at +1. In other tasks, such as drawer-open (-1) or reach (0), this
command identifies the task, although no motion shows it. door-close is left out, since its expert commands full speed
in every step, however the hand moves."""


@dataclass
class BenchConfig:
    """Measure stage 1, the latent action quantizer."""

    output: Path = Path("outputs/benchmarks/laq.json")
    """JSON file of the results; results of sections that are not run now stay in the file."""
    quick: bool = False
    """Do a tenth of the work (one seed, few steps), to see whether everything runs; the results are rough."""
    sections: list[str] = field(default_factory=lambda: [name for name in SECTIONS if name != "ranking"])
    seeds: int = 3
    """Number of seeds (0, 1, …) of `meta_world`, `drawn_tasks` and the labelled variants of `nuisance`."""
    source_seeds: int = 1
    """Number of seeds of `sources`."""
    steps: int = 500
    """Training steps of each run of `meta_world`, `nuisance`, `robot` and `drawn_tasks`."""
    device: str = "cpu"
    """Device of the networks of `drawn_tasks` and `ranking`; simulations run on the CPU."""
    workers: int = 2
    """Jobs of `drawn_tasks` and `ranking` at the same time, each on one thread."""
    nuisance_kinds: list[str] = field(default_factory=lambda: list(laq_nuisance.KINDS))
    """Kinds of nuisance that `nuisance` measures: distractor, camera."""
    robot_dataset: Path | None = None
    """Folder of a real robot's LeRobotDataset, with actions."""
    lapa_repo: Path | None = None
    """Git clone of https://github.com/LatentActionPretraining/LAPA, whose code `throughput` measures."""

    def __post_init__(self) -> None:
        require_known("sections", self.sections, SECTIONS)
        require_numbers(self, "seeds", "source_seeds", "steps", "workers", at_least=1)

    @property
    def data(self) -> Path:
        """Folder of the recorded demonstrations."""
        return self.output.parent / "data"

    @property
    def runs(self) -> Path:
        """Folder of the trained quantizers."""
        return self.output.parent / ("laq_quick" if self.quick else "laq")


def demonstrations(
    config: BenchConfig, name: str, *, episodes: int, nuisance: str = "none", tasks: tuple[str, ...] = TASKS
) -> Path:
    """Return the folder of a recording of `tasks`, which is made only once."""
    root = config.data / name
    if not root.exists():
        print(f"recording {root}", flush=True)
        run_command(
            "hlrp.cli.collect_demos",
            f"--output_dir={root}",
            f"--tasks=[{','.join(tasks)}]",
            f"--episodes_per_task={episodes}",
            f"--nuisance={nuisance}",
            log=root.with_suffix(".log"),
        )
    return root


def meta_world(config: BenchConfig) -> dict[str, Any]:
    """Measure the quality of the preset `small` on held-out episodes, for several seeds."""
    root = demonstrations(config, "six_tasks", episodes=40)
    seeds, steps = (1, 150) if config.quick else (config.seeds, config.steps)
    outputs = {seed: config.runs / f"meta_world_{seed}" for seed in range(seeds)}
    side_by_side(
        [
            lambda seed=seed, output=output: train_laq(
                output, f"--dataset_root={root}", f"--steps={steps}", f"--seed={seed}", "--preset=small"
            )
            for seed, output in outputs.items()
        ]
    )
    metrics = {str(seed): quality_metrics(output) for seed, output in outputs.items()}
    print(quality_table(metrics))
    return metrics


def quality_metrics(output: Path) -> dict[str, Any]:
    """Return the metrics and the training time of a trained LAQ, from the files in its folder."""
    card = json.loads((output / "quality.json").read_text(encoding="utf-8"))
    cost = json.loads((output / "cost.json").read_text(encoding="utf-8"))
    return {
        "probe_r2_codes": card["probe_r2"],
        "probe_r2_vectors": card["probe_r2_vectors"],
        "probe_r2_frame_only": card["probe_r2_frame_only"],
        "probe_r2_pixels": card["probe_r2_pixels"],
        "probe_r2_relative": card["probe_r2_relative"],
        "probe_r2_relative_vectors": card["probe_r2_relative_vectors"],
        "probe_gain": card["probe_gain"],
        "perplexity": card["perplexity"],
        "permuted_gain_ratio": card["permuted_gain_ratio"],
        "copy_gain": card["copy_gain"],
        "cpu_minutes": cost["cpu_minutes"],
    }


def quality_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Format metrics as a table with a row for each run."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    names = (
        "probe_r2_codes",
        "probe_r2_vectors",
        "probe_r2_frame_only",
        "probe_r2_relative",
        "probe_gain",
        "permuted_gain_ratio",
        "copy_gain",
    )
    rows = [
        [
            run,
            *(number(card[name]) for name in names),
            " ".join(f"{slot:.1f}" for slot in card["perplexity"]),
            f"{card['cpu_minutes']:.1f}",
        ]
        for run, card in metrics.items()
    ]
    return table(["run", *names, "perplexity", "CPU min"], rows)


def collapse(config: BenchConfig) -> dict[str, Any]:
    """Count, for every quantizer, the short training runs whose codebook collapsed: `[collapsed, runs]`."""
    root = demonstrations(config, "six_tasks", episodes=40)
    counts = laq_collapse.run(root, steps=40 if config.quick else 100, seeds=range(1 if config.quick else 6))
    print(table(["quantizer", "collapsed", "runs"], [[name, str(a), str(b)] for name, (a, b) in counts.items()]))
    return counts


def nuisance(config: BenchConfig) -> dict[str, Any]:
    """Measure how well codes predict actions and the nuisance, without and with a few labelled episodes."""
    roots = {
        kind: demonstrations(config, f"nuisance_{kind}", episodes=40, nuisance=kind) for kind in config.nuisance_kinds
    }
    steps, seeds = (60, 1) if config.quick else (config.steps, config.seeds)
    return laq_nuisance.run(roots, config.runs, steps=steps, seeds=seeds)


def throughput(config: BenchConfig) -> dict[str, Any]:
    """Measure training samples per second, also of LAPA's code if there is a clone of it."""
    return laq_throughput.run(config.lapa_repo)


def loader(config: BenchConfig) -> dict[str, Any]:
    """Measure frames per second of our loader, divided by those of the bare video decoder."""
    if config.robot_dataset is None:
        return skipped("loader", "robot_dataset")
    return laq_loader.run(str(config.robot_dataset))


def robot(config: BenchConfig) -> dict[str, Any]:
    """Measure the quality of LAQs trained on a real robot's recording: with the default quantizer, and with FSQ."""
    if config.robot_dataset is None:
        return skipped("robot", "robot_dataset")
    steps = 60 if config.quick else config.steps
    flags = (f"--dataset_root={config.robot_dataset}", f"--steps={steps}", "--frame_offset_s=0.25", "--held_out=0.2")
    metrics: dict[str, Any] = {}
    for name, quantizer in {"default": (), "fsq": ("--quantizer=fsq", "--codebook_size=8")}.items():
        output = config.runs / f"robot_{name}"
        train_laq(output, *flags, *quantizer)
        metrics[name] = quality_metrics(output)
    print(quality_table(metrics))
    return metrics


def drawn_tasks(config: BenchConfig) -> dict[str, Any]:
    """Measure R² on tasks that no default was chosen on, without and with a few labelled episodes."""
    root = demonstrations(config, "drawn_tasks", episodes=20, tasks=laq_tasks.DRAWN_TASKS)
    steps, seeds = (60, 1) if config.quick else (config.steps, config.seeds)
    folder = config.runs / "drawn_tasks"
    return laq_tasks.run(
        laq_tasks.TaskRun(root, folder, steps=steps, seeds=seeds, device=config.device, workers=config.workers)
    )


def causes(config: BenchConfig) -> dict[str, Any]:
    """Look for the cause of the R² that codes lose on the tasks of `drawn_tasks`, whose first quantizer is measured."""
    root = demonstrations(config, "drawn_tasks", episodes=20, tasks=laq_tasks.DRAWN_TASKS)
    return laq_causes.run(config.runs / "drawn_tasks" / "laq_0", root)


def sources(config: BenchConfig) -> dict[str, Any]:
    """Measure whether codes of one quantizer mean the same on two datasets and on films."""
    settings = laq_sources.SourcesRun(
        datasets=(
            demonstrations(config, "six_tasks_30", episodes=30),
            demonstrations(config, "drawn_tasks", episodes=20, tasks=laq_tasks.DRAWN_TASKS),
        ),
        recording=demonstrations(config, "six_tasks", episodes=40),
        films=config.data / laq_sources.FILMS,
        folder=config.runs / "sources",
        seeds=config.source_seeds,
    )
    return laq_sources.run(replace(settings, steps=60) if config.quick else settings)


def ranking(config: BenchConfig) -> dict[str, Any]:
    """Correlate every metric of the card with the success of policies, over quantizers trained in different ways."""
    root = demonstrations(config, "six_tasks_30", episodes=30)
    settings = laq_ranking.RankingRun(
        root, config.runs / "ranking", TASKS, device=config.device, workers=config.workers
    )
    if config.quick:
        settings = replace(settings, laq_steps=30, foundation_steps=30, steps=30, eval_episodes=1)
    return laq_ranking.run(settings)


def skipped(section: str, flag: str) -> dict[str, Any]:
    """Return the result of a section that cannot run, since the option `flag` was not given."""
    print(f"{section}: skipped, --{flag} names no folder")
    return {"skipped": f"--{flag} was not given"}


SECTIONS: dict[str, Callable[[BenchConfig], dict[str, Any]]] = {
    "meta_world": meta_world,
    "collapse": collapse,
    "nuisance": nuisance,
    "throughput": throughput,
    "loader": loader,
    "robot": robot,
    "drawn_tasks": drawn_tasks,
    "causes": causes,
    "sources": sources,
    "ranking": ranking,
}
_KEYS = {"robot": "g1", "drawn_tasks": "tasks"}
"""Keys in the JSON file of sections whose key is not their name."""
_COPIED: tuple[str, ...] = ("tasks", "ranking", "nuisance")
"""Keys that are also copied to `few_labels.json` beside the file: they measure codes trained with few actions."""


def main(config: BenchConfig) -> None:
    """Run the sections one after the other."""
    copies = {} if config.quick else dict.fromkeys(_COPIED, config.output.with_name("few_labels.json"))
    run_sections(config.sections, SECTIONS, config, config.output, keys=_KEYS, quick=config.quick, copies=copies)


if __name__ == "__main__":
    run_benchmark(BenchConfig, main)
