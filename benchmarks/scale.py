"""Measurements of labels at scale, in one command: `make bench-scale`.

Sections: `labels` (speed of labelling a real robot's recording beside a naive loop, bare decoding and bare encoding,
and of two workers beside one), `memory` (peak memory of labelling over the number of frames), `training_memory` (the
same for a few steps of stages 1 and 2, which read clips and frames from the videos), `kills` (commands that are killed
and started again), `mutations` (damaged files), `demo` (time and success of `hlrp-demo`, about 20 minutes). Each
section writes its part of `outputs/benchmarks/scale.json`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import scale_data, scale_demo, scale_kills, scale_labels, scale_mutations
from benchmarks.running import require_known, run_benchmark, run_command, run_sections
from hlrp.runtime.tables import table

_STEPS = 20
"""Steps of a training whose memory is measured."""


@dataclass
class BenchConfig:
    """Measure labelling at scale, and what survives kills and damaged files."""

    output: Path = Path("outputs/benchmarks/scale.json")
    """JSON file of the results; results of sections that are not run now stay in the file."""
    quick: bool = False
    """Do a part of the work, to see whether everything runs; the results are rough."""
    sections: list[str] = field(default_factory=lambda: list(SECTIONS))
    robot_dataset: Path = Path("../shared/data/g1_pick_bottle")
    """Folder of a real robot's LeRobotDataset with videos, which `labels` measures."""
    frames: list[int] = field(default_factory=lambda: [100_000, 1_000_000])
    """Numbers of frames at which `memory` and `training_memory` measure; multiples of 10,000."""

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
    """Measure the peak memory of labelling in GiB, by the number of frames."""
    found: dict[str, float] = {}
    for frames in _frames(config):
        found[str(frames)] = _peak_gib(config, "precompute_latent_codes", frames, *_label_flags(config, frames))
    return found


def training_memory(config: BenchConfig) -> dict[str, dict[str, float]]:
    """Measure the peak memory of a few steps of stages 1 and 2 in GiB, by command and number of frames.

    No frame is kept in memory, as for datasets that are larger than the memory.
    """
    found: dict[str, dict[str, float]] = {"train_laq": {}, "train_foundation": {}}
    for frames in _frames(config):
        labels = config.runs / f"tiny_{frames}_labels"
        if not labels.exists():
            _peak_gib(config, "precompute_latent_codes", frames, *_label_flags(config, frames))
        held_out = 2 * scale_data.FRAMES_OF_AN_EPISODE / frames
        common = (f"--steps={_STEPS}", f"--held_out={held_out}", "--cache_gib=0", "--device=cpu")
        laq = ("--preset=debug", f"--image_size={scale_data.SIDE}", *common)
        vla = (f"--labels_path={labels}", *common)
        for command, flags in (("train_laq", laq), ("train_foundation", vla)):
            with tempfile.TemporaryDirectory(dir=config.runs) as scratch:
                peak = _peak_gib(config, command, frames, *flags, f"--output_dir={scratch}/model")
            found[command][str(frames)] = peak
    return found


def _frames(config: BenchConfig) -> list[int]:
    return [20_000, 100_000] if config.quick else config.frames


def _label_flags(config: BenchConfig, frames: int) -> tuple[str, ...]:
    laq, labels = scale_data.tiny_laq(config.runs / "tiny_laq"), config.runs / f"tiny_{frames}_labels"
    return (f"--laq_path={laq}", f"--output_dir={labels}", "--overwrite=true", "--device=cpu")


def _peak_gib(config: BenchConfig, command: str, frames: int, *flags: str) -> float:
    """Run a command of `hlrp.cli` on that many frames, and return the peak of its memory in GiB."""
    data = scale_data.tiny_frames(config.runs / f"tiny_{frames}", frames=frames)
    log = config.runs / f"memory_{command}_{frames}.log"
    cost = run_command(f"hlrp.cli.{command}", f"--dataset_root={data}", *flags, log=log)
    print(f"{command}, {frames} frames: {cost.peak_gib:.3f} GiB, {cost.cpu_minutes:.1f} CPU minutes", flush=True)
    return cost.peak_gib


def kills(config: BenchConfig) -> dict[str, Any]:
    """Kill commands at random moments and start them again: `[identical, tried]` by command."""
    once = dict.fromkeys(("laq", "foundation", "recorder", "pseudo_label", "policy"), 1)
    few = {"labels": 3, **once} if config.quick else {}
    return scale_kills.kills(scale_kills.KillsConfig(work_dir=config.runs / "kills", **few))


def mutations(config: BenchConfig) -> dict[str, Any]:
    """Damage datasets, labels and checkpoints, and count the outcomes of the commands that load them."""
    return scale_mutations.mutations(scale_mutations.MutationConfig(quick=config.quick))


def demo(config: BenchConfig) -> dict[str, Any]:
    """Run the demo, and return its time and what its models reached."""
    found = scale_demo.run(config.runs / ("demo_quick" if config.quick else "demo"), quick=config.quick)
    low, high = found["success_interval"]
    print(
        f"demo: {found['seconds']:.0f} s; success {found['success']:.2f} ({low:.2f} to {high:.2f}); R² of the codes "
        f"{found['probe_r2']:.2f}"
    )
    return found


SECTIONS: dict[str, Callable[[BenchConfig], dict[str, Any]]] = {
    "labels": labels,
    "memory": memory,
    "training_memory": training_memory,
    "kills": kills,
    "mutations": mutations,
    "demo": demo,
}


def main(config: BenchConfig) -> None:
    """Run the sections one after the other."""
    run_sections(config.sections, SECTIONS, config, config.output, keys={}, quick=config.quick)


if __name__ == "__main__":
    run_benchmark(BenchConfig, main)
