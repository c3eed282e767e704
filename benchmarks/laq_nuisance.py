"""Measure whether codes describe the motion of the robot or that of a nuisance.

The data is Meta-World with a ball that moves on its own, or with a camera that moves. Every variant is trained with
`hlrp-train-laq`. Linear probes then predict the action chunk, and the displacement of the nuisance over the clip, from
the one-hot codes of held-out episodes.

Shapes: b clips, g features of a probe, y numbers of a nuisance's state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from benchmarks.running import run_command, side_by_side, train_laq
from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.data.dataset import open_dataset
from hlrp.data.labels import load_labels
from hlrp.data.sources import lerobot_source
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.measure.held_out import evaluate_laq
from hlrp.measure.laq_quality import LAQQuality
from hlrp.measure.linear_probe import linear_probe
from hlrp.runtime.tables import table

KINDS = ("distractor", "camera")
"""Kinds of nuisance that are measured."""
_MEANS = ("action_r2_codes", "action_r2_vectors", "nuisance_r2")
LABELLED_SHARE = 0.025
"""Share of the training episodes whose actions the labelled variant uses."""


@dataclass(frozen=True)
class Variant:
    """Name and options of one way to train the LAQ."""

    name: str
    flags: tuple[str, ...]
    labelled: bool = False
    """Whether the LAQ learns from actions; then several seeds are trained."""
    has_teacher: bool = False
    """Whether `hlrp-pseudo-label` first predicts the actions of all video, trained on the labelled episodes of
    `_LABELLED`; the LAQ then learns from all these actions."""


VARIANTS = (
    Variant("pixels alone", ("--augmentation.reverse_probability=0", *(f"--views.{x}=0" for x in (
        "max_shift", "max_brightness", "max_contrast")))),
    Variant("+ reversed clips", tuple(f"--views.{x}=0" for x in ("max_shift", "max_brightness", "max_contrast"))),
    Variant("+ altered view (default)", ()),
    Variant("default + 2.5 % labels", (f"--labelled_fraction={LABELLED_SHARE}",), labelled=True),
    Variant("+ a teacher that labels all video", ("--labelled_fraction=1",), labelled=True, has_teacher=True),
    Variant("+ codes fitted to these actions", ("--labelled_fraction=1", "--fit_codes_to=actions"), labelled=True,
            has_teacher=True),
)  # fmt: skip
_LABELLED = 3
"""Number of the variant that chooses the labelled episodes."""


def run(roots: Mapping[str, Path], runs: Path, *, steps: int, seeds: int) -> dict[str, Any]:
    """Train and probe every variant on every kind of nuisance.

    Args:
        roots: Recording of each kind, with its `nuisance` column.
        runs: Folder of the trained quantizers.
        steps: Training steps.
        seeds: Seeds of the labelled variant; the others have one.

    Returns:
        `{"<kind>: <variant>": {"action_r2_codes", "action_r2_vectors", "nuisance_r2", "seeds": …}}`, means over seeds.
    """
    jobs: dict[tuple[str, str, int], Path] = {}
    trainings: list[Callable[[], None]] = []
    teachers: list[Callable[[], None]] = []
    students: list[Callable[[], None]] = []
    for kind, root in roots.items():
        for seed in range(seeds):
            teachers.append(partial(_predict_actions, root, runs / f"nuisance_{kind}_{_LABELLED}_{seed}"))
        for number, variant in enumerate(VARIANTS):
            for seed in range(seeds if variant.labelled else 1):
                output = runs / f"nuisance_{kind}_{number}_{seed}"
                jobs[kind, variant.name, seed] = output
                flags = (f"--steps={steps}", f"--seed={seed}", *variant.flags)
                completed = _completed(runs / f"nuisance_{kind}_{_LABELLED}_{seed}")
                data = completed if variant.has_teacher else root
                (students if variant.has_teacher else trainings).append(partial(_train, data, output, *flags))
    for group in (trainings, teachers, students):  # each uses what the one before made
        side_by_side(group)
    results: dict[str, Any] = {}
    for kind, root in roots.items():
        for variant in VARIANTS:
            of_seeds = [probe(jobs[key], root) for key in jobs if key[:2] == (kind, variant.name)]
            results[f"{kind}: {variant.name}"] = {
                **{name: mean(one[name] for one in of_seeds) for name in _MEANS},
                "seeds": of_seeds,
            }
    print(_table(results))
    return results


def _train(root: Path, output: Path, *flags: str) -> None:
    train_laq(output, f"--dataset_root={root}", *flags)


def _completed(laq: Path) -> Path:
    """Folder of the dataset whose actions are predicted from the labelled episodes of the LAQ `laq`."""
    return laq.with_name(f"{laq.name}_actions")


def _predict_actions(root: Path, laq: Path) -> None:
    """Predict the actions of all video, by a model trained on the labelled episodes of the LAQ `laq`."""
    completed = _completed(laq)
    if not completed.exists():
        episodes = load_laq(laq).extra["sources"][0]["labelled_episodes"]
        options = (f"--dataset_root={root}", f"--output_dir={completed}", f"--labelled_episodes={episodes}")
        run_command("hlrp.cli.pseudo_label", *options, "--start=scratch", log=completed.with_suffix(".log"))


def probe(laq_path: Path, dataset_root: Path) -> dict[str, Any]:
    """Return the R² of linear probes from codes to the recorded actions and to the nuisance's displacement.

    The probes are scored on the held-out episodes of the LAQ's training.
    """
    laq = load_laq(laq_path)
    dataset = open_dataset("local/nuisance", dataset_root)
    with tempfile.TemporaryDirectory() as scratch:
        options = PrecomputeConfig(
            laq_path=str(laq_path), dataset_root=str(dataset_root), output_dir=f"{scratch}/labels"
        )
        precompute_latent_codes(options)
        labels = load_labels(f"{scratch}/labels")
    nuisance = torch.tensor(dataset.hf_dataset.with_format("numpy")["nuisance"][:])
    start = labels.valid.nonzero()[:, 0]
    codes = F.one_hot(labels.codes[start], laq.model.spec.codebook_size).flatten(1)
    moves = nuisance[start + laq.model.spec.frame_deltas(dataset.fps)[-1]] - nuisance[start]
    held_out = torch.tensor(laq.extra["sources"][0]["held_out_episodes"])
    card = _quality(laq, dataset)
    return {
        "action_r2_codes": card.probe.probe_r2,
        "action_r2_vectors": card.probe.probe_r2_vectors,
        "action_r2_interval": card.probe.probe_r2_interval,
        "nuisance_r2": motion_r2(codes, moves, torch.isin(labels.episode_index[start], held_out)),
        "copy_gain": card.pictures.copy_gain,
    }


def motion_r2(codes: Int[Tensor, "b z"], moves: Float[Tensor, "b 3"], is_held_out: Bool[Tensor, " b"]) -> float:
    """R² of displacements in held-out episodes, predicted linearly from one-hot codes."""
    scaled = (moves - moves[~is_held_out].mean(0)) / moves[~is_held_out].std(0)
    fit, test = ~is_held_out, is_held_out
    return float(linear_probe(codes[fit].double(), scaled[fit], codes[test].double(), scaled[test]).pooled())


def _quality(laq: LoadedLAQ, dataset: LeRobotDataset) -> LAQQuality:
    """Measure a LAQ on the recorded actions of `dataset`; its own card may have been trained on others."""
    source = lerobot_source(dataset, cameras=laq.cameras, image_size=laq.model.config.image_size, cache_gib=1)
    episodes = torch.arange(len(source.bounds))
    is_held_out = torch.isin(episodes, torch.tensor(laq.extra["sources"][0]["held_out_episodes"]))
    return evaluate_laq(laq.model, source, episodes[~is_held_out], episodes[is_held_out], seed=laq.extra["seed"])


def _table(results: Mapping[str, Any]) -> str:
    rows = []
    for name, metrics in results.items():
        low, high = metrics["seeds"][0]["action_r2_interval"]
        rows.append(
            [
                name,
                f"{metrics['action_r2_codes']:.3f}",
                f"{low:.2f} … {high:.2f}",
                f"{metrics['action_r2_vectors']:.3f}",
                f"{metrics['nuisance_r2']:.3f}",
                str(len(metrics["seeds"])),
            ]
        )
    return table(["variant", "R² action, codes", "95 % (seed 0)", "… vectors", "R² nuisance", "seeds"], rows)
