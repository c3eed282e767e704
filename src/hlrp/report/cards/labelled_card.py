"""Dataset card of a copy of a dataset with latent labels as columns."""

from __future__ import annotations

from pathlib import Path

from lerobot.utils.constants import ACTION

from hlrp.data.dataset import ACTION_KNOWN, ACTION_VALID
from hlrp.data.labels import LabelMetadata
from hlrp.report.cards.dataset_card import DatasetContent, dataset_card
from hlrp.report.cards.parts import markdown_text, source_name
from hlrp.runtime.tables import ranges, with_noun


def labelled_card(content: DatasetContent, labels: LabelMetadata, *, labelled: int, source: Path) -> str:
    """Card of a dataset from `hlrp-precompute-latent-codes --output_dataset`.

    Args:
        content: The new dataset, named as the source.
        labels: Description of the labels.
        labelled: Frames with a label.
        source: Folder of the source.
    """
    return dataset_card(
        content,
        title="Dataset with latent labels",
        summary=_summary(content, labels, labelled),
        sources=f"All episodes of {source_name(content.repo_id)}, in the same order.",
        actions=_actions(content),
        tags=["latent-actions"],
        folders={content.repo_id: source},
    )


def _summary(content: DatasetContent, labels: LabelMetadata, labelled: int) -> str:
    spec = labels.spec
    what = f"{with_noun(spec.num_codes, 'code')} of {spec.codebook_size}" if labels.has_codes else "vectors"
    cameras = ", ".join(markdown_text(camera) for camera in (labels.camera, *labels.further_cameras))
    span = spec.frame_offset_s * spec.num_transitions
    maker = f"the latent action quantizer `{markdown_text(labels.laq_fingerprint)}`"
    if labels.vla_fingerprint is not None:
        maker = f"the foundation model `{markdown_text(labels.vla_fingerprint)}`, which predicts the codes of {maker},"
    text = (
        f"`hlrp-precompute-latent-codes` copied a LeRobotDataset and added latent labels: {what} for what changes "
        f"within {span:g} s after a frame, from {maker} and the cameras {cameras}. {labelled} of "
        f"{with_noun(content.frames, 'frame')} have a label; the clips of the others would pass the end of their "
        "episode."
    )
    skipped = sorted(int(number) for number in labels.skipped_episodes)
    return f"{text} The episodes {ranges(skipped)} could not be read and have no label." if skipped else text


def _actions(content: DatasetContent) -> str:
    if ACTION not in content.features:
        return "The source has no actions."
    text = "Actions are those of the source, unchanged."
    if ACTION_VALID in content.features:
        text += f" Where `{ACTION_VALID}` is false, the source knew no action and holds a placeholder."
    if ACTION_KNOWN in content.features:
        text += f" Where `{ACTION_KNOWN}` is false, the action was predicted from video before."
    return text
