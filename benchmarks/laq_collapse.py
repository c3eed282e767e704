"""Measure how often the codebook collapses, in many short training runs of a small LAQ with every quantizer.

A run counts as collapsed when the perplexity exp(entropy) of the codes of any slot, over held-out clips, is below a
quarter of the codebook: with 8 codes, below 2, which is fewer choices than a fair coin gives.

    python -m benchmarks.laq_collapse --dataset_root DATASET
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.optim import AdamW

from benchmarks.lapa_nsvq import LapaNSVQ
from hlrp.cli.common import read_options, run_cli
from hlrp.data.clip_starts import clip_starts
from hlrp.data.clips import ClipBatches
from hlrp.data.episode_split import TrainingSource, split_episodes
from hlrp.data.source_config import ClipAugmentation
from hlrp.data.sources import open_lerobot_source
from hlrp.laq import config as laq_config
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.code_fit import fit_codes
from hlrp.laq.objective.losses import reconstruction_loss
from hlrp.laq.objective.task import LAQTrainingConfig
from hlrp.laq.objective.views import altered_view
from hlrp.laq.quantizers.kmeans import WhitenedKMeans
from hlrp.latents import LatentSpec
from hlrp.report.metrics import collapsed_below
from hlrp.runtime.tables import table
from hlrp.training.optimization import parameter_groups

CONTROL = "lapa_nsvq"
"""Name of the control, a LAQ with `LapaNSVQ` as its quantizer."""
QUANTIZERS = (*(name for name in laq_config.QUANTIZERS if name != "continuous"), CONTROL)
"""All quantizers that have codes."""
BATCH_SIZES = (8, 64, 256)
HELD_OUT_CLIPS = 2048
HELD_OUT_SHARE = 0.1
LEARNING_RATE = 1e-3
_FIT_CLIPS = 2048
"""Clips to which codes of the kind `kmeans` are fitted after the training."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Settings and results of one training run."""

    quantizer: str
    batch_size: int
    seed: int
    perplexity: list[float]
    """Perplexity of each slot's codes over held-out clips."""
    error: float
    """Motion-weighted reconstruction error of held-out clips, over that of copying the first frame."""
    seconds: float

    def collapsed(self, codebook_size: int) -> bool:
        """Return whether the perplexity of any slot is below `collapsed_below(codebook_size)`."""
        return min(self.perplexity) < collapsed_below(codebook_size)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Training source with its frames in memory, and held-out clips."""

    train: TrainingSource
    held_out: UInt8[Tensor, "b t m c h w"]

    @classmethod
    def load(cls, dataset_root: Path, spec: LatentSpec) -> Clips:
        """Decode a LeRobotDataset once and split its episodes."""
        source = open_lerobot_source(
            "local/laq_collapse", dataset_root, cameras=[], image_size=debug().image_size, cache_gib=2.0
        )
        train, held_out = split_episodes(len(source.bounds), held_out=HELD_OUT_SHARE, seed=0)
        deltas = spec.frame_deltas(source.fps)
        starts = clip_starts(source, deltas, held_out)
        pick = starts[torch.randperm(len(starts), generator=torch.Generator().manual_seed(0))[:HELD_OUT_CLIPS]]
        return cls(
            train=TrainingSource(source=source, episodes=train),
            held_out=source.frames.read(pick[:, None] + torch.tensor(deltas)),
        )


def run(
    dataset_root: Path,
    steps: int = 150,
    seeds: Sequence[int] = range(6),
    quantizers: Sequence[str] = QUANTIZERS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    spec: LatentSpec | None = None,
) -> dict[str, list[int]]:
    """Train every quantizer at every batch size and seed.

    Returns:
        For each quantizer `[collapsed, runs]`.
    """
    return summary(list(train_all(dataset_root, steps, seeds, quantizers, batch_sizes, spec)), spec)


def summary(runs: Sequence[Run], spec: LatentSpec | None = None) -> dict[str, list[int]]:
    """`[collapsed, runs]` of each quantizer."""
    k = (spec or LatentSpec()).codebook_size
    counts: dict[str, list[int]] = {}
    for one in runs:
        count = counts.setdefault(one.quantizer, [0, 0])
        count[0] += one.collapsed(k)
        count[1] += 1
    return counts


def train_all(
    dataset_root: Path,
    steps: int,
    seeds: Sequence[int],
    quantizers: Sequence[str],
    batch_sizes: Sequence[int] = BATCH_SIZES,
    spec: LatentSpec | None = None,
) -> Iterator[Run]:
    """Train every quantizer at every batch size and seed, and yield each run when it is done."""
    spec = spec or LatentSpec()
    clips = Clips.load(dataset_root, spec)
    for quantizer in quantizers:
        for batch_size in batch_sizes:
            for seed in seeds:
                yield train_one(clips, quantizer, spec, batch_size=batch_size, steps=steps, seed=seed)


def train_one(clips: Clips, quantizer: str, spec: LatentSpec, *, batch_size: int, steps: int, seed: int) -> Run:
    """Train a debug-size LAQ and measure it on held-out clips."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = build(quantizer, spec)
    task = LAQTrainingConfig()
    optimizer = AdamW(parameter_groups(model, weight_decay=0.05), lr=LEARNING_RATE, betas=(0.9, 0.98))
    batches = ClipBatches(
        [clips.train],
        spec,
        batch_size=batch_size,
        num_batches=steps,
        seed=seed,
        augmentation=ClipAugmentation(),
    )
    for step in range(steps):
        batch = batches[step]
        frames = model.to_pixels(batch.frames)
        result = model(frames, altered_view(frames, batch.views, task.views))
        assert result.frames is not None
        error = reconstruction_loss(result.frames, frames[:, :-1], frames[:, 1:], motion_strength=task.motion_strength)
        optimizer.zero_grad()
        (task.losses.pixels * error + result.quantizer_loss).backward()
        optimizer.step()
    if isinstance(model.quantizer, WhitenedKMeans):
        fit_codes(model, [batches[step] for step in range(min(steps, math.ceil(_FIT_CLIPS / batch_size)))], task.views)
    perplexity, error = measure(model, clips.held_out, task.motion_strength)
    return Run(
        quantizer=quantizer,
        batch_size=batch_size,
        seed=seed,
        perplexity=perplexity,
        error=error,
        seconds=time.perf_counter() - start,
    )


def build(quantizer: str, spec: LatentSpec) -> LatentActionQuantizer:
    """Build a debug-size LAQ with the quantizer of this name."""
    config = replace(debug(), spec=spec, patch_size=8)
    if quantizer != CONTROL:
        return LatentActionQuantizer(replace(config, quantizer=quantizer))
    model = LatentActionQuantizer(config)
    model.quantizer = LapaNSVQ(spec)
    return model


@torch.no_grad()
def measure(
    model: LatentActionQuantizer, clips: UInt8[Tensor, "b t m c h w"], motion_strength: float
) -> tuple[list[float], float]:
    """Return the perplexity of each slot, and the reconstruction error divided by that of copying the first frame."""
    model.eval()
    frames = model.to_pixels(clips)
    results = [model(part) for part in frames.split(512)]
    before, after = frames[:, :-1], frames[:, 1:]
    predicted = torch.cat([result.frames for result in results])
    error, copied = (
        float(reconstruction_loss(one, before, after, motion_strength=motion_strength)) for one in (predicted, before)
    )
    codes = torch.cat([result.codes for result in results]).flatten(0, 1)
    return slot_perplexity(F.one_hot(codes, model.spec.codebook_size).double().mean(0)), error / copied


def slot_perplexity(usage: Float[Tensor, "s k"]) -> list[float]:
    """Return exp(entropy) of each slot's code frequencies."""
    return torch.special.entr(usage).sum(-1).exp().tolist()


@dataclass
class CollapseConfig:
    """Count collapsed codebooks."""

    dataset_root: Path
    """Folder of a LeRobotDataset."""
    steps: int = 150
    seeds: int = 6
    """Seeds 0, 1, … of every batch size."""
    batch_sizes: list[int] = field(default_factory=lambda: list(BATCH_SIZES))
    quantizers: list[str] = field(default_factory=lambda: list(QUANTIZERS))
    output: Path | None = None
    """JSON file for every run."""


def main(config: CollapseConfig) -> None:
    """Print collapsed runs of each quantizer."""
    runs = []
    for one in train_all(config.dataset_root, config.steps, range(config.seeds), config.quantizers, config.batch_sizes):
        runs.append(one)
        perplexity = " ".join(f"{value:.1f}" for value in one.perplexity)
        print(
            f"{one.quantizer} batch {one.batch_size} seed {one.seed}: perplexity {perplexity}, error {one.error:.3f}, "
            f"{one.seconds:.1f} s",
            flush=True,
        )
    counts = summary(runs)
    if config.output is not None:
        config.output.write_text(json.dumps({"counts": counts, "runs": [asdict(one) for one in runs]}, indent=2))
    rows = []
    for name, (collapsed, total) in counts.items():
        of_quantizer = [one for one in runs if one.quantizer == name]
        lowest = min(min(one.perplexity) for one in of_quantizer)
        error = sum(one.error for one in of_quantizer) / total
        rows.append([name, f"{collapsed}/{total}", f"{lowest:.2f}", f"{error:.3f}"])
    print(table(["quantizer", "collapsed", "lowest perplexity", "error over copying"], rows))


if __name__ == "__main__":
    run_cli(lambda: main(read_options(CollapseConfig)))
