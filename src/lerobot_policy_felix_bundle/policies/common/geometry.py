"""Checks that VLA, labels and policy use the codes of the same LAQ, and the length of an action chunk."""

from __future__ import annotations

from hlrp.latents import LatentSpec, require_same_laq

from .configuration import HLRPConfig
from .labels import LabelSource

_CHUNK_WITHOUT_DATASET = 8
"""Chunk size if the option is None and there is no dataset whose frame rate would determine it."""


def settle_laq(config: HLRPConfig, fingerprint: str, owner: str) -> None:
    """Check the `fingerprint` in `owner` against that of the policy's LAQ, which is set if it is unknown.

    Args:
        config: Configuration of the policy.
        fingerprint: Fingerprint of a LAQ; "" means unknown.
        owner: What has this fingerprint, for the message.

    Raises:
        ValueError: If they differ.
    """
    known = config.laq_fingerprint
    remedy = "label the dataset with the same LAQ, or start a new policy"
    require_same_laq(known, fingerprint, this="this policy", that=owner, remedy=remedy)
    config.laq_fingerprint = known or fingerprint or None


def settle_geometry(
    config: HLRPConfig, spec: LatentSpec, labels: LabelSource | None, *, fps: float | None, is_saved: bool
) -> None:
    """Check the geometry of the codes, and set the options for it and for the chunk size.

    Args:
        config: Configuration of the policy; modified in place.
        spec: Geometry of the VLA's codes.
        labels: Latent labels of the run; None if there are none.
        fps: Frame rate of the training dataset in Hz; None outside training.
        is_saved: Whether a saved policy is being loaded, whose chunk size is known.

    Raises:
        ValueError: If the options or the labels have codes of another geometry or LAQ, or the chunk size does not fit.
    """
    for name in ("codebook_size", "code_seq_len"):
        chosen, found = getattr(config, name), getattr(spec, name)
        if chosen not in (None, found):
            raise ValueError(
                f"--policy.{name}={chosen}, but the LAQ of this run has {name}={found}; leave it out, or set "
                f"--policy.{name}={found}"
            )
        setattr(config, name, found)
    if labels is not None:
        settle_laq(config, labels.laq_fingerprint, "the latent labels")
        spec.require_same_codes(labels.spec, this="the foundation model", that="the latent labels")
    _settle_chunk(config, spec, fps=fps, is_saved=is_saved)


def _settle_chunk(config: HLRPConfig, spec: LatentSpec, *, fps: float | None, is_saved: bool) -> None:
    """Set the chunk size from the option, from the span of a label at the dataset's frame rate, or to the default.

    Raises:
        ValueError: If a chunk is longer than the span of a label or than the window of actions that was loaded.
    """
    # A decoder from codes alone cannot predict beyond the span; other action heads accept any chunk size.
    is_free = config.chunk_size is not None and not config.chunk_ends_with_label
    if fps is None or is_free:
        config.settle_chunk(config.chunk_size or _CHUNK_WITHOUT_DATASET)
        return
    span = spec.offset_frames(fps) * spec.num_transitions
    window = len(config.action_delta_indices)
    if config.chunk_size is None and span > window:
        raise ValueError(
            f"a latent action spans {span} frames at {fps:g} fps, more than the {window} for which "
            f"chunk_size can be left out; set --policy.chunk_size={span} or less"
        )
    chunk_size = config.chunk_size or span
    config.settle_chunk(chunk_size)
    if config.chunk_ends_with_label and chunk_size > span:
        or_not = "" if is_saved else "leave it out, or "
        raise ValueError(
            f"chunk_size={chunk_size} is longer than the {span} frames a latent action spans at {fps:g} fps; "
            f"{or_not}set --policy.chunk_size={span} or less"
        )
