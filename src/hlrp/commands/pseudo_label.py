"""`hlrp-pseudo-label`: fill in the actions of a dataset of which few episodes have actions."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.commands.running import choose_device
from hlrp.data.combining import SourceCount, combine
from hlrp.data.dataset import (
    ACTION_KNOWN,
    ACTION_VALID,
    CONFIDENCE,
    dataset_name,
    episode_bounds,
    episode_of_frame,
    open_dataset,
    read_instructions,
    read_vectors,
)
from hlrp.data.known_actions import known_actions
from hlrp.data.rewritten_dataset import NewColumn, write_with_columns
from hlrp.data.source_config import AddedSourceConfig
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.inverse_dynamics.pseudo_actions import PseudoActions, pseudo_actions
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import LatentSpec, log_offset
from hlrp.options.pseudo_label import PseudoLabelConfig
from hlrp.report.cards.dataset_card import CARD_FILE, DatasetContent
from hlrp.report.cards.pseudo_label_card import pseudo_label_card
from hlrp.report.pages.pseudo_label_page import action_names, render_pseudo_label_page
from hlrp.runtime.event_log import event_log, log_event
from hlrp.runtime.tables import shortened, table, with_noun
from hlrp.storage.files import refuse_existing, scratch_directory, sole_writer

logger = logging.getLogger(__name__)

_USABLE_R2 = 0.5
"""R² on held-out actions below which the command warns: a policy would learn mostly errors."""
REPORT_DIR = "pseudo_labels"
"""Folder within the new dataset that holds the report."""
METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"


def pseudo_label(config: PseudoLabelConfig) -> PseudoActions:
    """Train inverse dynamics models, predict all unknown actions from video, and write the completed dataset.

    Raises:
        FileExistsError: If `config.output_dir` exists, or another process is writing it.
        FileNotFoundError: If the LAQ, the dataset or a further source does not exist.
        ValueError: If a source does not fit, or too few actions are known.
    """
    target = Path(config.output_dir)
    with event_log(config.log_json, command="hlrp-pseudo-label", options=config), sole_writer(target):
        refuse_existing(target)
        device = choose_device(config.device)
        laq = load_laq(config.laq_path, device=device) if config.start == "laq" else None
        with scratch_directory(target) as scratch:
            return _complete(config, laq, target, scratch, device)


def _complete(
    config: PseudoLabelConfig, laq: LoadedLAQ | None, target: Path, scratch: Path, device: str
) -> PseudoActions:
    """Write the completed dataset to `target`, with intermediate files in `scratch`, and print what was found."""
    dataset, known, sources = _open(config, scratch)
    found = _read(config, dataset, known, laq, device)
    _explain(found, dataset)
    columns = _columns(dataset, found, config.min_confidence)
    content = DatasetContent.of(
        dataset.meta, repo_id=config.repo_id, added={name: column.feature for name, column in columns.items()}
    )
    card = _card(config, content, dataset, found, _known_of_sources(sources, found, dataset), laq)
    write_with_columns(dataset, target, columns, beside={CARD_FILE: card, **_report(found, dataset)})
    log_event("saved", path=str(target), r2=found.held_out.to_dict()["r2"], **_counts(found))
    print(_summary(found))
    explained = found.held_out.to_dict()["r2"]
    if not explained >= _USABLE_R2:  # also if it is unknown
        logger.warning(
            f"R² of {explained:.2f} on held-out actions is too low to train a policy on the predicted actions: "
            "expected 0.5 or more; label more episodes, or train longer with --model.steps"
        )
    print(_next_command(config, dataset, found))
    return found


def _open(config: PseudoLabelConfig, scratch: Path) -> tuple[LeRobotDataset, Bool[Tensor, " f"], Sequence[SourceCount]]:
    """The dataset to complete, its frames with a known action and its sources; several are combined in `scratch`."""
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    dataset = open_dataset(name, config.dataset_root, tolerance_s=config.tolerance_s)
    if ACTION_KNOWN in dataset.meta.features and config.action_valid_column is None:
        raise ValueError(
            f"{dataset.repo_id} already holds actions that were read from video, which would count as known; complete "
            f"the dataset that it was made from, or set --action_valid_column={ACTION_KNOWN} to read them anew"
        )
    known = known_actions(
        dataset.meta,
        fraction=config.labelled_fraction,
        episodes=config.labelled_episodes,
        column=config.action_valid_column,
        seed=config.model.seed,
    )
    if not config.sources:
        folder = Path(dataset.root)
        return dataset, known, [SourceCount(dataset.repo_id, dataset.num_episodes, len(known), 0, (), folder)]
    _require_recorded(config.sources)
    folder = scratch / "combined"
    sources = combine(dataset, config.sources, folder, repo_id=config.repo_id)
    joined = open_dataset(config.repo_id, folder, tolerance_s=config.tolerance_s)
    kept = known_actions(joined.meta)[len(known) :]  # the frames of the first dataset come first
    return joined, torch.cat([known, kept]), sources


def _require_recorded(sources: Sequence[AddedSourceConfig]) -> None:
    """Refuse to keep actions that this command predicted from video, since they would count as known."""
    for source in sources:
        if ACTION not in source.keep:
            continue
        name = dataset_name(source.dataset_repo_id, source.dataset_root)
        dataset = open_dataset(name, source.dataset_root, tolerance_s=source.tolerance_s)
        if ACTION_KNOWN in dataset.meta.features:
            raise ValueError(
                f"{source.dataset_root or name} holds actions that were read from video, which would count as known; "
                f"add the dataset that it was made from, or leave {ACTION} out of keep"
            )


def _read(
    config: PseudoLabelConfig,
    dataset: LeRobotDataset,
    known: Bool[Tensor, " f"],
    laq: LoadedLAQ | None,
    device: str,
) -> PseudoActions:
    spec = LatentSpec(frame_offset_s=config.frame_offset_s) if laq is None else laq.model.spec
    image_size = (config.image_size, config.image_size) if laq is None else laq.model.config.image_size
    cameras = config.cameras or ([] if laq is None else laq.cameras)
    source = lerobot_source(dataset, cameras=cameras, image_size=image_size, cache_gib=config.cache_gib)
    if laq is not None:
        laq.require_cameras(source.cameras)
    log_offset(spec, source.fps, of=source.name)
    deltas = spec.frame_deltas(source.fps)
    if deltas[-1] == 1 and config.model.members == 1:
        _explain_equal_confidence(config.min_confidence, spec, source.fps)
    known = _known_and_finite(source, known, column=config.action_valid_column)
    episodes = episode_of_frame(source.bounds)[known].unique().tolist()
    logger.info(
        f"{int(known.sum())} of {len(known)} frames have a known action, in {with_noun(len(episodes), 'episode')}: "
        f"{shortened(episodes)}"
    )
    return pseudo_actions(
        source,
        known,
        deltas=deltas,
        image_size=image_size,
        config=config.model,
        laq=None if laq is None else laq.model,
        instructions=read_instructions(dataset),
        device=device,
    )


def _explain_equal_confidence(min_confidence: float, spec: LatentSpec, fps: float) -> None:
    """Warn that a single model on clips of one action gives all predicted actions the same confidence.

    Raises:
        ValueError: If `min_confidence` is above 0, since it would keep all predicted actions or none.
    """
    text = (
        f"clips of {spec.frame_offset_s:g} s at {fps:g} fps span a single action each, and a single model predicts it, "
        "so that nothing shows how unsure it is and all predicted actions get the same confidence"
    )
    remedy = (
        f"use a --frame_offset_s of {2 / fps:.3g} or more (with start=laq, in the LAQ), or --model.members=2 or more"
    )
    if min_confidence > 0:
        raise ValueError(f"{text}: min_confidence={min_confidence:g} would keep all of them or none; {remedy}")
    logger.warning(f"{text}; {remedy}")


def _known_and_finite(source: ClipSource, known: Bool[Tensor, " f"], *, column: str | None) -> Bool[Tensor, " f"]:
    """`known` without the frames that the user's `column` marks but whose action is unknown by `ACTION_VALID`.

    Raises:
        ValueError: If no frame is left.
    """
    assert column is not None or source.actions is not None, "without a column, known actions are finite"
    finite = torch.zeros_like(known) if source.actions is None else source.actions.isfinite().all(1)
    denied = int((known & ~finite).sum())
    if denied == 0:
        return known
    text = (
        f"{denied} of the {int(known.sum())} frames that the column {column!r} marks have no action by the dataset's "
        f"column {ACTION_VALID!r}"
    )
    if not (known & finite).any():
        raise ValueError(f"{text}; set --action_valid_column to a column that agrees with it")
    logger.warning(f"{text}: their actions are predicted from video")
    return known & finite


def _explain(found: PseudoActions, dataset: LeRobotDataset) -> None:
    """Log where predicted actions are limited: dimensions that never change in the labels, and too short episodes."""
    names = action_names(dataset.meta.features[ACTION], found.actions.shape[1])
    constant = [name for name, varies in zip(names, found.held_out.varies, strict=True) if not varies]
    if constant and found.read.any():
        logger.info(
            f"constant in the labelled episodes, and therefore in every action that was read: {', '.join(constant)}; "
            "if the robot moves them elsewhere, label an episode in which it does"
        )
    lacking = _episodes_without_actions(dataset, found)
    if lacking:
        logger.warning(
            f"{with_noun(len(lacking), 'episode')} shorter than a clip, of which no action can be read: "
            f"{shortened(lacking)}; {ACTION_VALID!r} is false there, and {ACTION!r} holds the mean of the known actions"
        )


def _episodes_without_actions(dataset: LeRobotDataset, found: PseudoActions) -> list[int]:
    """Episodes with frames of which no action is known or was predicted."""
    return episode_of_frame(episode_bounds(dataset.meta))[~found.has_action].unique().tolist()


def _columns(dataset: LeRobotDataset, found: PseudoActions, min_confidence: float) -> dict[str, NewColumn]:
    feature = dataset.meta.features[ACTION]
    recorded = read_vectors(dataset.meta, ACTION)
    assert recorded is not None, "a dataset that was opened has data files"
    # Models learn in float32, which cannot represent every float64 and every integer; known actions stay unchanged.
    actions = torch.where(found.known[:, None], recorded, found.actions.double()).numpy()
    is_valid = found.has_action.numpy()[:, None]
    flag = {"dtype": "bool", "shape": (1,), "names": None}
    confidence = found.confidence.numpy()[:, None]
    return {
        ACTION: NewColumn(actions, feature),
        CONFIDENCE: NewColumn(confidence, {"dtype": "float32", "shape": (1,), "names": None}),
        ACTION_KNOWN: NewColumn(found.known.numpy()[:, None], flag),
        ACTION_VALID: NewColumn(is_valid & (confidence >= min_confidence), flag),
    }


def _report(found: PseudoActions, dataset: LeRobotDataset) -> dict[str, str]:
    """Files of the report by their path within the new dataset."""
    names = action_names(dataset.meta.features[ACTION], found.actions.shape[1])
    metrics = {"held_out": found.held_out.to_dict(), "frames": _counts(found)}
    page = render_pseudo_label_page(found, names, episode_bounds(dataset.meta))
    return {
        f"{REPORT_DIR}/{METRICS_FILE}": json.dumps(metrics, indent=2) + "\n",
        f"{REPORT_DIR}/{PAGE_FILE}": page,
    }


def _known_of_sources(
    sources: Sequence[SourceCount], found: PseudoActions, dataset: LeRobotDataset
) -> list[SourceCount]:
    """`sources`, whose episodes follow one another, with the actions that count as known in this run."""
    bounds = episode_bounds(dataset.meta).tolist()
    counts: list[SourceCount] = []
    for source in sources:
        start = sum(count.episodes for count in counts)
        own = range(start, start + source.episodes)
        known = sum(int(found.known[slice(*bounds[episode])].sum()) for episode in own)
        complete = tuple(episode for episode in own if found.known[slice(*bounds[episode])].all())
        counts.append(replace(source, known=known, known_episodes=complete))
    return counts


def _card(
    config: PseudoLabelConfig,
    content: DatasetContent,
    dataset: LeRobotDataset,
    found: PseudoActions,
    sources: Sequence[SourceCount],
    laq: LoadedLAQ | None,
) -> str:
    return pseudo_label_card(
        content,
        sources,
        found,
        config=config.model,
        laq=None if laq is None else laq.fingerprint,
        cameras=config.cameras or ([] if laq is None else laq.cameras) or dataset.meta.camera_keys,
        min_confidence=config.min_confidence,
        without_actions=_episodes_without_actions(dataset, found),
        episodes=_worth_training(dataset, found, config.min_confidence),
        report=f"{REPORT_DIR}/{PAGE_FILE}",
    )


def _counts(found: PseudoActions) -> dict[str, float | None]:
    read = found.confidence[found.read]
    return {
        "known": int(found.known.sum()),
        "read": len(read),
        "mean_confidence": float(read.mean()) if len(read) else None,
    }


def _summary(found: PseudoActions) -> str:
    measured, frames = found.held_out.to_dict(), _counts(found)
    sure = frames["mean_confidence"]
    calibration = measured["calibration"]["error"]
    rows = [
        ["frames with a known action", str(frames["known"])],
        ["frames whose action was predicted from video", str(frames["read"])],
        ["mean confidence of the predicted actions", "–" if sure is None else f"{sure:.0%}"],
        [f"held-out {found.held_out.unit}: explained variance of actions, R²", f"{measured['r2']:.3f}"],
        [f"actions within {measured['tolerance']:g} standard deviations", f"{measured['right']:.0%}"],
        ["calibration error of the confidence (0 is perfect)", f"{calibration:.3f}"],
    ]
    return table(["pseudo-labels", ""], rows)


def _are_usable(found: PseudoActions) -> bool:
    """Whether the predicted actions are accurate enough to train a policy on them."""
    return found.held_out.to_dict()["r2"] >= _USABLE_R2


def _worth_training(dataset: LeRobotDataset, found: PseudoActions, min_confidence: float) -> list[int]:
    """Episodes that a policy of LeRobot can learn: those that are labelled if the predicted actions are too inaccurate,
    and else those with all actions and enough confidence."""
    has_action = found.has_action if _are_usable(found) else found.known
    return [
        episode
        for episode, (first, end) in enumerate(episode_bounds(dataset.meta).tolist())
        if has_action[first:end].all() and found.confidence[first:end].mean() >= min_confidence
    ]


def _next_command(config: PseudoLabelConfig, dataset: LeRobotDataset, found: PseudoActions) -> str:
    """The command that trains a policy of LeRobot on the new dataset, or on its labelled episodes alone if the
    predicted actions are too inaccurate to train on."""
    flags = [f"--dataset.repo_id={config.repo_id}", f"--dataset.root={config.output_dir}"]
    sure = _worth_training(dataset, found, config.min_confidence)
    if len(sure) < dataset.num_episodes:
        flags.append(f"--dataset.episodes={sure}")
    words = ["lerobot-train", "--policy.type=act", "--policy.push_to_hub=false", "--steps=20000", *flags]
    if not sure:
        return "no episode of it has actions that are worth training on"
    advice = "train any policy of LeRobot on it" if _are_usable(found) else "train on its labelled episodes alone"
    return f"{advice}, such as\n    {shlex.join(words)}"
