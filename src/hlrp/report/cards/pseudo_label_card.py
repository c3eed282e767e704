"""Dataset card of a dataset whose unknown actions were predicted from video."""

from __future__ import annotations

from collections.abc import Sequence

from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.data.combining import SourceCount
from hlrp.data.dataset import ACTION_KNOWN, ACTION_VALID
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.inverse_dynamics.pseudo_actions import PseudoActions
from hlrp.report.cards.combined_card import UNKNOWN_STATE, folders_of_counts, sources_of_counts
from hlrp.report.cards.dataset_card import DatasetContent, dataset_card
from hlrp.report.cards.parts import markdown_table, markdown_text
from hlrp.report.pages.pseudo_label_page import action_names
from hlrp.runtime.tables import ranges, with_noun


def pseudo_label_card(
    content: DatasetContent,
    counts: Sequence[SourceCount],
    found: PseudoActions,
    *,
    config: InverseDynamicsConfig,
    laq: str | None,
    cameras: Sequence[str],
    min_confidence: float,
    without_actions: Sequence[int],
    episodes: Sequence[int],
    report: str,
) -> str:
    """Card of a dataset from `hlrp-pseudo-label`.

    Args:
        content: The new dataset.
        counts: What each source contributes, with its known actions, in the order of the episodes.
        found: Known and predicted actions, and what was measured on held-out actions.
        config: Options of the inverse dynamics models.
        laq: Fingerprint of the LAQ from whose encoder the models started; None for random weights.
        cameras: Cameras that the models see.
        min_confidence: Confidence below which actions are not valid.
        without_actions: Episodes with frames of which no action is known or was predicted.
        episodes: Episodes that are worth training a policy of LeRobot on.
        report: Path of the report within the dataset.
    """
    start = (
        "from random weights"
        if laq is None
        else f"from the encoder of the latent action quantizer `{markdown_text(laq)}`"
    )
    known, read = int(found.known.sum()), int(found.read.sum())
    complete = [number for count in counts for number in count.known_episodes]
    sees = ", ".join(markdown_text(camera) for camera in cameras)
    parts = [
        f"{known} of {with_noun(content.frames, 'frame')} have a true action. All actions are true in the episodes "
        f"{ranges(complete)}. The other actions, {read} in all, were predicted from video ({sees}) by "
        f"{with_noun(config.members, 'inverse dynamics model')}, each trained for {with_noun(config.steps, 'step')} on "
        f"the true actions, {start}. Seed: {config.seed}. The last action of an episode has no visible effect: where "
        "it is not known, it repeats the action before, with confidence 0.",
        *([UNKNOWN_STATE] if len(counts) > 1 and OBS_STATE in content.features else []),
        *_limits(content, found, min_confidence, without_actions),
        _measured(found, report),
    ]
    return dataset_card(
        content,
        title="Dataset with actions predicted from video",
        summary=(
            "`hlrp-pseudo-label` completed the actions of a LeRobotDataset of which few episodes have actions: inverse "
            f"dynamics models predicted the others. The column `{ACTION_KNOWN}` tells them apart."
        ),
        sources=sources_of_counts(counts),
        actions="\n\n".join(parts),
        tags=["pseudo-labels"],
        folders=folders_of_counts(counts),
        has_films=any(count.folder is None for count in counts),
        meanings={
            ACTION: f"the true action where `{ACTION_KNOWN}` is true, else the predicted action",
            ACTION_KNOWN: "whether the action is true, and was not predicted",
            ACTION_VALID: f"whether there is an action, with a confidence of {min_confidence:g} or more",
        },
        episodes=None if len(episodes) == content.episodes else episodes,
    )


def _limits(
    content: DatasetContent, found: PseudoActions, min_confidence: float, without_actions: Sequence[int]
) -> list[str]:
    """Paragraphs about actions that could not be predicted, or count as invalid."""
    names = action_names(content.features[ACTION], found.actions.shape[1])
    constant = [markdown_text(name) for name, varies in zip(names, found.held_out.varies, strict=True) if not varies]
    parts = []
    if constant and found.read.any():
        parts.append(
            f"Constant in every predicted action, because the true actions never vary there: {', '.join(constant)}."
        )
    if without_actions:
        parts.append(
            f"The episodes {ranges(without_actions)} are shorter than a clip, so that nothing could be predicted: "
            f"`{ACTION_VALID}` is false there, and `{ACTION}` holds the mean of the true actions."
        )
    if min_confidence > 0:
        parts.append(f"`{ACTION_VALID}` is false where the confidence is below {min_confidence:g}.")
    return parts


def _measured(found: PseudoActions, report: str) -> str:
    """What was measured on true actions that were held out of training."""
    held_out, confidence = found.held_out.to_dict(), found.confidence[found.read]
    rows = [
        [
            "R²: explained variance of the actions; 1 is perfect, and below 0.5 is too low to train on",
            f"{held_out['r2']:.3f}",
        ],
        [
            f"actions within {held_out['tolerance']:g} standard deviations, which count as right",
            f"{held_out['right']:.0%}",
        ],
        ["calibration error of the confidence; 0 is perfect", f"{held_out['calibration']['error']:.3f}"],
        ["mean confidence of the predicted actions", f"{float(confidence.mean()):.0%}" if len(confidence) else "–"],
    ]
    parts = (
        "whole episodes" if held_out["held_out"] == "episodes" else "short segments, so other episodes may be harder"
    )
    basis = (
        f"Measured on {with_noun(held_out['frames'], 'true action')} that were held out of training in "
        f"{held_out['folds']} parts: {parts} ([report]({report})):"
    )
    return f"{basis}\n\n{markdown_table(['metric', 'value'], rows)}"
