"""Measurements of labels at scale, in one command: `make bench-scale`.

Sections: `labels` (speed of labelling a real robot's recording beside a naive loop, bare decoding and bare encoding,
and of two workers beside one), `memory` (peak memory over the number of frames), `kills` (commands that are killed and
started again), `mutations` (damaged files). Each section writes its part of `outputs/benchmarks/scale.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import scale_data, scale_kills, scale_labels, scale_mutations
from benchmarks.running import require_known, run_benchmark, run_command, run_sections
from hlrp.runtime.tables import table


@dataclass
class BenchConfig:
    """Measure labelling at scale, and what survives kills and damaged files."""

    output: Path = Path("outputs/benchmarks/scale.json")
    """JSON file of the results; results of sections that are not run now stay in the file."""
    quick: bool = False
    """Do a part of the work, to see whether everything runs; the results are rough."""
    sections: list[str] = field(default_factory=lambda: ["labels", "memory", "kills", "mutations"])
    robot_dataset: Path = Path("../shared/data/g1_pick_bottle")
    """Folder of a real robot's LeRobotDataset with videos, which `labels` measures."""
    frames: list[int] = field(default_factory=lambda: [100_000, 1_000_000])
    """Numbers of frames at which `memory` measures; multiples of 10,000."""

    def __post_init__(self) -> None:
        require_known("sections", self.sections, SECTIONS)

    @property
    def runs(self) -> Path:
        """Folder of datasets, models and labels of the measurements."""
        return self.output.parent / "scale"


def labels(config: BenchConfig) -> dict[str, Any]:
    """Measure labels per second."""
    if not config.robot_dataset.is_dir():
        print(f"labels: skipped, there is no dataset in {config.robot_dataset}")
        return {"skipped": "robot_dataset is not there"}
    found = scale_labels.run(config.robot_dataset, config.runs, quick=config.quick)
    print(table(["labels", "per second"], [[name, f"{value:.0f}"] for name, value in found.items()]))
    return found


def memory(config: BenchConfig) -> dict[str, float]:
    """Measure the peak memory of the command in GiB, by the number of frames."""
    laq, found = scale_data.tiny_laq(config.runs / "tiny_laq"), {}
    for frames in [20_000, 100_000] if config.quick else config.frames:
        data = scale_data.tiny_frames(config.runs / f"tiny_{frames}", frames=frames)
        cost = run_command(
            "hlrp.cli.precompute_latent_codes",
            f"--laq_path={laq}",
            f"--dataset_root={data}",
            f"--output_dir={config.runs / f'tiny_{frames}_labels'}",
            "--overwrite=true",
            "--device=cpu",
            log=config.runs / f"memory_{frames}.log",
        )
        found[str(frames)] = cost.peak_gib
        print(f"{frames} frames: {cost.peak_gib:.3f} GiB, {cost.cpu_minutes:.1f} CPU minutes", flush=True)
    return found


def kills(config: BenchConfig) -> dict[str, Any]:
    """Kill commands at random moments and start them again: `[identical, tried]` by command."""
    few = {"labels": 3, "laq": 1, "foundation": 1, "recorder": 1, "pseudo_label": 1} if config.quick else {}
    return scale_kills.kills(scale_kills.KillsConfig(work_dir=config.runs / "kills", **few))


def mutations(config: BenchConfig) -> dict[str, Any]:
    """Damage datasets, labels and checkpoints, and count the outcomes of the commands that load them."""
    return scale_mutations.mutations(scale_mutations.MutationConfig(quick=config.quick))


SECTIONS: dict[str, Callable[[BenchConfig], dict[str, Any]]] = {
    "labels": labels,
    "memory": memory,
    "kills": kills,
    "mutations": mutations,
}


def main(config: BenchConfig) -> None:
    """Run the sections one after the other."""
    run_sections(config.sections, SECTIONS, config, config.output, keys={}, quick=config.quick)


if __name__ == "__main__":
    run_benchmark(BenchConfig, main)
