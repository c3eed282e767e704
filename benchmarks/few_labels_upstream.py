"""Everything that the policies of the few-labels benchmark start from: quantizers, labels, foundation models, datasets.

Each function is one job, and writes its output completely or not at all.

Shapes: f frames, a action dimensions, q codes of a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmarks.forked import run_forked
from hlrp.data.dataset import CONFIDENCE, episode_bounds, episode_of_frame, open_dataset, read_actions, read_vectors
from hlrp.data.known_actions import ORDER_OF_LABELLED
from hlrp.data.labels import load_labels, save_labels
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.inverse_dynamics.confidence import Calibration
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.k_means import k_means
from hlrp.latents import NO_LABEL
from hlrp.measure.baselines import random_laq, trainable_config
from hlrp.measure.linear_probe import linear_probe
from hlrp.report.saving import save_laq
from hlrp.storage.files import write_json

_MEMBERS, _FOLDS = 2, 2
"""Inverse dynamics models of an ensemble, and parts of the labelled episodes that are held out in turn."""
_FOUNDATION_BATCH = 64
"""Frames per step of a foundation model."""
_CLIPS = 256
"""Clips from which an untrained quantizer takes the mean and standard deviation of its vectors."""


def train_quantizer(
    dataset: Path,
    output: Path,
    *,
    steps: int,
    seed: int,
    device: str,
    labelled: bool = False,
    flags: Sequence[str] = (),
) -> None:
    """Train a LAQ on all video of the dataset: without any action, or if `labelled` is true with all actions, to which
    the codes are then fitted.

    `flags` are more options of `hlrp-train-laq`.
    """
    common = [f"--dataset_root={dataset}", f"--output_dir={output}", f"--steps={steps}", f"--seed={seed}"]
    actions = ["--labelled_fraction=1", "--fit_codes_to=actions"] if labelled else []
    _resumable("hlrp.cli.train_laq", output, [*common, f"--device={device}", *actions, *flags])


def random_quantizer(dataset: Path, output: Path, *, like: Path, seed: int) -> None:
    """Write an untrained LAQ of the architecture of the LAQ in the folder `like`."""
    laq = load_laq(like)
    source = _source(dataset, laq.cameras, laq.model.config.image_size)
    deltas = torch.tensor(laq.model.spec.frame_deltas(source.fps))
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(int(source.bounds[-1, 1]) - int(deltas[-1]), (_CLIPS,), generator=generator)
    torch.manual_seed(seed)
    model = random_laq(trainable_config(laq.model.config), [source.frames.read(starts[:, None] + deltas)])
    save_laq(model, output, cameras=laq.cameras, extra=laq.extra)


def write_codes(dataset: Path, laq: Path, output: Path, *, device: str) -> None:
    """Label every frame with the codes of a LAQ."""
    flags = [f"--dataset_root={dataset}", f"--laq_path={laq}", f"--output_dir={output}", f"--device={device}"]
    run_forked("hlrp.cli.precompute_latent_codes", *flags, log=output.with_suffix(".log"))


def write_action_codes(
    dataset: Path, like: Path, output: Path, *, seed: int, episodes: Sequence[int] | None = None
) -> None:
    """Replace the codes of the label set `like` by residual k-means of the true actions over the same time.

    No quantizer of video can say more about the actions with codes of this size, up to the greedy search. Without
    `episodes`, all clips get codes; with them, only their clips.
    """
    labels = load_labels(like, with_vectors=True)
    actions = read_actions(open_dataset("local/hlrp_demos", dataset))
    steps = labels.metadata.spec.offset_frames(labels.metadata.fps) * labels.metadata.spec.num_transitions
    valid = labels.valid
    if episodes is not None:
        valid = valid & torch.isin(labels.episode_index, torch.tensor(episodes))
    starts = valid.nonzero()[:, 0]
    left = actions[starts[:, None] + torch.arange(steps)].flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    codes = torch.full_like(labels.codes, NO_LABEL)
    for slot in range(labels.codes.shape[1]):
        centres = k_means(left, labels.metadata.spec.codebook_size, generator)
        nearest = torch.cdist(left, centres).argmin(1)
        codes[starts, slot] = nearest
        left = left - centres[nearest]
    metadata = replace(labels.metadata, laq_fingerprint=f"oracle{seed:010d}")
    save_labels(replace(labels, codes=codes, valid=valid, metadata=metadata), output)


def train_foundation(
    dataset: Path,
    labels: Path,
    output: Path,
    *,
    steps: int,
    seed: int,
    device: str,
    episodes: Sequence[int] | None = None,
) -> None:
    """Train a foundation model on the codes of all frames, or of the frames of some episodes."""
    flags = [
        f"--dataset_root={dataset}",
        f"--labels_path={labels}",
        f"--output_dir={output}",
        f"--steps={steps}",
        f"--batch_size={_FOUNDATION_BATCH}",
        f"--seed={seed}",
        f"--device={device}",
        *([] if episodes is None else [f"--episodes={list(episodes)}"]),
    ]
    _resumable("hlrp.cli.train_foundation", output, flags)


def write_pseudo_actions(
    dataset: Path,
    output: Path,
    *,
    laq: Path | None,
    episodes: list[int],
    steps: int,
    batch_size: int,
    frames: int,
    seed: int,
    device: str,
) -> None:
    """Write the dataset with actions that an inverse dynamics model predicts, trained on a few labelled episodes."""
    flags = [
        f"--dataset_root={dataset}",
        f"--output_dir={output}",
        f"--labelled_episodes={episodes}",
        f"--model.steps={steps}",
        f"--model.batch_size={batch_size}",
        f"--model.frames={frames}",
        f"--model.members={_MEMBERS}",
        f"--model.folds={_FOLDS}",
        f"--model.seed={seed}",
        f"--device={device}",
        *(["--start=scratch"] if laq is None else ["--start=laq", f"--laq_path={laq}"]),
    ]
    run_forked("hlrp.cli.pseudo_label", *flags, log=output.with_suffix(".log"))


def _resumable(module: str, output: Path, flags: list[str]) -> None:
    """Run a training command, or continue what an interrupted benchmark left of it."""
    state = output.with_name(f"{output.name}.training") / "last.ckpt"
    resume = ["--resume=true"] if state.is_file() else []
    run_forked(module, *flags, *resume, log=output.with_suffix(".log"), append=bool(resume))


# ---- How well every labeller predicts the actions of unlabelled episodes, before any policy is trained ----


def write_labeller_scores(
    dataset: Path, output: Path, *, episodes: list[int], codes: dict[str, Path], read: dict[str, Path]
) -> dict[str, dict[str, float]]:
    """Measure R² of the actions of unlabelled episodes, pooled over dimensions in units of their standard deviation.

    Args:
        dataset: Dataset with the true actions.
        output: JSON file to write what is returned to.
        episodes: Labelled episodes, on which the probes of codes and vectors are fitted.
        codes: Label sets by name; a ridge regression predicts the action of the first frame of every clip from them.
        read: Pseudo-labelled datasets by name; the actions in them are compared with the true ones.

    Returns:
        `action_r2` and, for pseudo-labelled datasets, `calibration_error` of the confidence, by name of the labeller.
    """
    opened = open_dataset("local/hlrp_demos", dataset)
    actions = read_actions(opened)
    labelled = torch.isin(episode_of_frame(episode_bounds(opened.meta)), torch.tensor(episodes))
    scale = actions[labelled].std(0)
    varies = scale > 1e-6
    actions = (actions / torch.where(varies, scale, 1.0))[:, varies]
    scores: dict[str, dict[str, float]] = {}
    for name, folder in codes.items():
        labels = load_labels(folder, with_vectors=True)
        assert labels.vectors is not None
        features = {"codes": _one_hot(labels.codes.clamp_min(0), labels.metadata.spec.codebook_size)}
        features |= {"vectors": labels.vectors}
        for kind, values in features.items():
            explained = _probe(values, actions, labelled & labels.valid, ~labelled & labels.valid)
            scores[f"{name}: {kind}"] = {"action_r2": explained}
    for name, folder in read.items():
        completed = open_dataset("local/pseudo_labelled", folder)
        found = (read_actions(completed) / torch.where(varies, scale, 1.0))[:, varies][~labelled]
        true = actions[~labelled]
        confidence = read_vectors(completed.meta, CONFIDENCE)
        assert confidence is not None
        right = (true - found).square().mean(1).sqrt() <= InverseDynamicsConfig().tolerance
        scores[name] = {
            "action_r2": float(1 - (true - found).square().sum() / (true - true.mean(0)).square().sum()),
            "calibration_error": Calibration.of(confidence[~labelled, 0].numpy(), right.numpy()).error,
        }
    write_json(output, scores)
    return scores


def _probe(
    features: Float[Tensor, "f _"],
    actions: Float[Tensor, "f a"],
    fit: Bool[Tensor, " f"],
    test: Bool[Tensor, " f"],
) -> float:
    return float(linear_probe(features[fit], actions[fit], features[test], actions[test]).pooled())


def choose_episodes(dataset: Path, *, budget: int, seed: int) -> list[int]:
    """Indices of the labelled episodes: `budget` of each task, in an order that `seed` shuffles; a larger budget
    contains a smaller one.

    The order is not the one by which quantizers and foundation models of the same seed choose the episodes that they
    hold out: their held-out episodes would be the labelled ones.
    """
    meta = open_dataset("local/hlrp_demos", dataset).meta
    assert meta.episodes is not None
    tasks = [episode[0] for episode in meta.episodes["tasks"]]
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(ORDER_OF_LABELLED + seed)).tolist()
    chosen: list[int] = []
    for task in dict.fromkeys(tasks):
        chosen += [number for number in order if tasks[number] == task][:budget]
    return sorted(chosen)


def _source(dataset: Path, cameras: list[str], image_size: tuple[int, int]) -> ClipSource:
    opened = open_dataset("local/hlrp_demos", dataset)
    return lerobot_source(opened, cameras=cameras, image_size=image_size, cache_gib=0)


def _one_hot(codes: Int[Tensor, "f q"], size: int) -> Float[Tensor, "f _"]:
    """One-hot codes, side by side."""
    return torch.nn.functional.one_hot(codes, size).flatten(1).float()
