"""Which metric of a quantizer's card predicts the success of policies trained on its codes?

Quantizers that were trained differently, good ones and bad ones, label the same video. A foundation model learns the
codes of each, and the policy `hlrp_vla_direct` learns from a few labelled episodes how codes become actions. For every
metric of the card, Spearman's rank correlation with the policies' success is then computed.

Shapes: i quantizers, x resamples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from benchmarks.few_labels_jobs import Job, run_jobs
from benchmarks.few_labels_upstream import choose_episodes, train_foundation, train_quantizer, write_codes
from benchmarks.policy_runs import train_and_evaluate
from benchmarks.running import require_same_settings
from hlrp.report.metrics import LAQ_METRICS
from hlrp.runtime.tables import table
from hlrp.storage.files import write_json

_RESAMPLES = 2000
"""Bootstrap samples of a correlation."""
_LEAST_QUANTIZERS = 4
"""Least number of quantizers for a correlation; with fewer, chance alone often gives a strong one."""
_LABELLED = 3
"""Labelled episodes of each task from which a policy learns."""
_LABELLED_SEED = 0
"""Seed of the choice of these episodes."""


@dataclass(frozen=True)
class QuantizerEntry:
    """How one quantizer is trained."""

    flags: tuple[str, ...] = ()
    """Options of `hlrp-train-laq` that differ from the defaults."""
    share: float = 1.0
    """Share of the training steps."""
    seed: int = 0


_NO_VIEWS = tuple(f"--views.{name}=0" for name in ("max_shift", "max_brightness", "max_contrast"))

_FSQ = "--quantizer=fsq"

QUANTIZERS = {
    **{f"default_{seed}": QuantizerEntry(seed=seed) for seed in range(3)},
    **{f"fsq_{seed}": QuantizerEntry((_FSQ,), seed=seed) for seed in range(3)},
    "untrained": QuantizerEntry((_FSQ,), share=0.0),
    "tenth_of_the_steps": QuantizerEntry((_FSQ,), share=0.1),
    "third_of_the_steps": QuantizerEntry((_FSQ,), share=0.3),
    "one_bit": QuantizerEntry((_FSQ, "--codebook_size=2", "--code_seq_len=1")),
    "codes_4x2": QuantizerEntry((_FSQ, "--codebook_size=4", "--code_seq_len=2")),
    "codes_16x4": QuantizerEntry((_FSQ, "--codebook_size=16")),
    "codes_8x8": QuantizerEntry((_FSQ, "--codebook_size=8", "--code_seq_len=8")),
    "offset_0.05": QuantizerEntry((_FSQ, "--frame_offset_s=0.05")),
    "offset_0.2": QuantizerEntry((_FSQ, "--frame_offset_s=0.2")),
    "size_debug": QuantizerEntry((_FSQ, "--preset=debug")),
    "no_reversal_no_views": QuantizerEntry((_FSQ, "--augmentation.reverse_probability=0", *_NO_VIEWS)),
    "pixels_only": QuantizerEntry((_FSQ, "--losses.coarse=0", "--losses.sketch=0")),
    "vq": QuantizerEntry(("--quantizer=vq",)),
}
"""Quantizers by name: seeds, codes with which the encoder learns instead of fitted ones, training that is too short,
too few and many codes, other offsets, a smaller network, and trainings without what makes codes describe motion."""


@dataclass(frozen=True)
class RankingRun:
    """Settings of the comparison; also the `PolicySettings` of its policies."""

    dataset: Path
    folder: Path
    """Folder of everything that is trained, with one JSON file of results for each quantizer."""
    tasks: tuple[str, ...]
    laq_steps: int = 300
    foundation_steps: int = 500
    steps: int = 600
    """Gradient steps of every policy."""
    batch_size: int = 32
    """Frames per step of a policy."""
    eval_episodes: int = 10
    """Evaluation episodes of each task."""
    device: str = "cpu"
    workers: int = 2


def run(settings: RankingRun, names: Sequence[str] = tuple(QUANTIZERS)) -> dict[str, list[float]]:
    """Train and evaluate what is missing; a quantizer that fails is left out.

    Returns:
        `{metric of the card: [Spearman, low, high]}` with 95 % intervals, the strongest correlation first.

    Raises:
        RuntimeError: If too few quantizers were evaluated.
    """
    lasting = ("laq_steps", "foundation_steps", "steps", "batch_size", "eval_episodes")
    require_same_settings(settings.folder, {name: getattr(settings, name) for name in lasting})
    failed = run_jobs([job for name in names for job in quantizer_jobs(settings, name)], workers=settings.workers)
    for sentence in failed:
        print(f"failed: {sentence}")
    found = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in names
        if (path := _result(settings, name)).exists()
    }
    if len(found) < _LEAST_QUANTIZERS:
        raise RuntimeError(
            f"{len(found)} quantizers were evaluated, and a ranking needs {_LEAST_QUANTIZERS} or more: "
            + ("; ".join(failed) or "name more of them")
        )
    print(_quantizer_table(found))
    ranking = rank(
        {name: one["card"] for name, one in found.items()}, {name: one["success"] for name, one in found.items()}
    )
    print(_ranking_table(ranking))
    return ranking


def quantizer_jobs(settings: RankingRun, name: str) -> list[Job]:
    """Jobs from the training of the quantizer `name` to the evaluation of the policy on its codes."""
    entry, folder = QUANTIZERS[name], settings.folder / name
    laq, labels, foundation = folder / "laq", folder / "labels", folder / "foundation"
    steps = max(round(entry.share * settings.laq_steps), 1)
    common: dict[str, Any] = {"seed": entry.seed, "device": settings.device}
    train = partial(train_quantizer, settings.dataset, laq, steps=steps, flags=entry.flags, **common)
    write = partial(write_codes, settings.dataset, laq, labels, device=settings.device)
    steps = settings.foundation_steps
    learn = partial(train_foundation, settings.dataset, labels, foundation, steps=steps, **common)
    act = partial(_evaluate, settings, name, labels, foundation)
    return [
        Job(f"LAQ {name}", laq, train),
        Job(f"codes of {name}", labels, write, (laq,)),
        Job(f"foundation on {name}", foundation, learn, (labels,)),
        Job(f"policy on {name}", _result(settings, name), act, (foundation,)),
    ]


def _result(settings: RankingRun, name: str) -> Path:
    return settings.folder / f"{name}.json"


def _evaluate(settings: RankingRun, name: str, labels: Path, foundation: Path) -> None:
    # Every policy gets the same seed, labelled episodes and initial states, so that only the codes differ.
    episodes = choose_episodes(settings.dataset, budget=_LABELLED, seed=_LABELLED_SEED)
    flags = [
        "--dataset.repo_id=local/hlrp_demos",
        f"--dataset.root={settings.dataset}",
        "--policy.type=hlrp_vla_direct",
        f"--policy.vla_checkpoint_path={foundation}",
        f"--policy.latent_labels_path={labels}",
        f"--policy.labelled_episodes={episodes}",
    ]
    folder = settings.folder / name
    found = train_and_evaluate(folder / "policy", flags, settings, tasks=settings.tasks, seed=0)
    won = [one for outcomes in found["outcomes"].values() for one in outcomes]
    card = json.loads((folder / "laq" / "quality.json").read_text(encoding="utf-8"))
    write_json(_result(settings, name), {"card": card_numbers(card), "success": sum(won) / len(won), **found})


def card_numbers(card: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a card that have a value, by key; of metrics with a value for each slot, the mean."""
    numbers: dict[str, float] = {}
    for name in LAQ_METRICS:
        value = card.get(name)
        if isinstance(value, list):
            numbers[name] = float(np.mean(value))
        elif value is not None:
            numbers[name] = float(value)
    return numbers


def rank(cards: Mapping[str, Mapping[str, float]], success: Mapping[str, float]) -> dict[str, list[float]]:
    """Spearman's correlation of every metric of the cards with success, with a bootstrap interval over quantizers.

    Args:
        cards: Metrics of the card by key, by quantizer.
        success: Success rate of the policy in [0, 1], by quantizer.

    Returns:
        `[Spearman, low, high]` by metric, the strongest first. A metric is left out if fewer than four quantizers have
        it, or if it is the same for all.
    """
    found: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for card in cards.values() for name in card):
        known = [one for one in cards if name in cards[one]]
        pairs = np.array([[cards[one][name], success[one]] for one in known])
        if len(known) < _LEAST_QUANTIZERS or not (np.ptp(pairs, axis=0) > 0).all():
            continue
        draws = np.random.default_rng(0).integers(len(known), size=(_RESAMPLES, len(known)))
        resampled = spearman(pairs[draws, 0], pairs[draws, 1])
        low, high = np.nanquantile(resampled, [0.025, 0.975])
        found[name] = [float(spearman(pairs[None, :, 0], pairs[None, :, 1])[0]), float(low), float(high)]
    return dict(sorted(found.items(), key=lambda item: -abs(item[1][0])))


def spearman(one: Float[np.ndarray, "x i"], other: Float[np.ndarray, "x i"]) -> Float[np.ndarray, " x"]:
    """Rank correlation of every row of `one` with that of `other`; ties share their mean rank. NaN for a row in which
    all values are equal."""
    first, second = (rankdata(values, axis=1) for values in (one, other))
    first, second = (ranks - ranks.mean(1, keepdims=True) for ranks in (first, second))
    size = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.where(size > 0, (first * second).sum(1) / np.where(size > 0, size, 1), np.nan)


def _quantizer_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    shown = ("probe_r2", "probe_r2_vectors", "probe_gain", "perplexity", "copy_gain")

    def cell(card: Mapping[str, float], name: str) -> str:
        return f"{card[name]:.3f}" if name in card else "–"

    rows = [
        [name, f"{one['success']:.0%}", *(cell(one["card"], key) for key in shown)]
        for name, one in sorted(found.items(), key=lambda item: -item[1]["success"])
    ]
    return table(["quantizer", "success", *shown], rows)


def _ranking_table(ranking: Mapping[str, Sequence[float]]) -> str:
    rows = [[name, f"{value:+.2f}", f"{low:+.2f} … {high:+.2f}"] for name, (value, low, high) in ranking.items()]
    return table(["metric of the card", "Spearman correlation with success", "95 % interval"], rows)
