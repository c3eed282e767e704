"""Record what a quantizer was trained on, and choose episodes to measure it that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from hlrp.data.clip_starts import has_clip
from hlrp.data.episode_split import TrainingSource, chosen_episodes, split_episodes
from hlrp.data.observation_sources import ObservationSource
from hlrp.data.recording_identity import RecordingIdentity
from hlrp.data.sources import ClipSource
from hlrp.runtime.tables import with_noun
from hlrp.storage.plain_values import from_plain


@dataclass(frozen=True, kw_only=True)
class TrainedSource:
    """What a checkpoint records about a source that its quantizer was trained on: an entry of `sources` in `extra`."""

    name: str
    share: float | None = None
    """Share of the training clips that came from this source, in [0, 1]."""
    episodes: int | None = None
    """Number of episodes that the run used, for training and measuring together."""
    chosen_episodes: list[int] | None = None
    """Numbers of these episodes; None for all episodes of the source."""
    held_out_episodes: list[int]
    labelled_episodes: list[int] = field(default_factory=list)
    """Episodes whose actions were learned from."""
    identity: RecordingIdentity | None = None
    """Identity of the source; None in checkpoints of the first version, which did not store it."""

    def seen_episodes(self, count: int) -> set[int]:
        """Numbers of the episodes that were trained on, of a source that has `count` episodes."""
        every = range(count) if self.chosen_episodes is None else self.chosen_episodes
        return set(every) - set(self.held_out_episodes)

    def __post_init__(self) -> None:
        if self.identity is not None:
            stored = self.identity.for_laq()
            lacking = [
                name for name, value in stored.items() if value is None and name not in ("duration_s", "actions")
            ]
            if lacking:
                raise ValueError(f"identity.{lacking[0]} is missing")


def describe_source(part: TrainingSource, *, share: float) -> dict[str, object]:
    """Description of a training source for the checkpoint: a `TrainedSource` as plain values.

    Args:
        part: The source and its split into training and held-out episodes.
        share: Share of the training clips that came from this source, in [0, 1].
    """
    identity = part.source.identity()
    described = TrainedSource(
        name=part.source.name,
        share=share,
        episodes=identity.episodes if part.chosen is None else len(part.chosen),
        chosen_episodes=None if part.chosen is None else part.chosen.tolist(),
        held_out_episodes=part.held_out.tolist(),
        labelled_episodes=part.labelled.tolist(),
    )
    return {**asdict(described), "identity": identity.for_laq()}


def trained_sources(extra: Mapping[str, Any]) -> list[TrainedSource]:
    """Sources in `extra` of a quantizer's checkpoint, as `describe_source` wrote them.

    Raises:
        ValueError: If an entry is missing or of a wrong type; the message names it.
    """
    return from_plain(list[TrainedSource], extra.get("sources", []), at="extra.sources")


def describe_observations(source: ObservationSource, *, share: float) -> dict[str, object]:
    """Description of a dataset of stage 2 for the checkpoint, as plain values.

    Args:
        source: The dataset and its split into training and held-out frames.
        share: Share of the training frames that came from this dataset, in [0, 1].
    """
    return {
        "name": source.name,
        "share": share,
        "cameras": list(source.cameras),
        "episodes": len(source.chosen),
        "held_out_episodes": source.held_out_episodes.tolist(),
    }


Basis = Literal["held out", "trained on", "another dataset", "unknown"]


@dataclass(frozen=True, kw_only=True)
class MeasuredEpisodes:
    """Episodes of a source on which a trained quantizer is measured."""

    fit: Int[Tensor, " e"]
    """Episodes on which probes are fitted."""
    measured: Int[Tensor, " _"]
    """Episodes on which probes are scored and all other metrics are measured."""
    basis: Basis
    """Relation of the measured episodes to the training of the quantizer. `held out`: it was trained on this dataset,
    but not on the measured episodes. `trained on`: it was trained on all episodes of this dataset. `another dataset`:
    it was trained on other recordings, as far as known. `unknown`: its checkpoint names no recordings."""
    sentence: str
    """Explanation of `basis` as a sentence for reports."""

    @property
    def short(self) -> str:
        """Explanation of `basis` in a few words, for the title of a table."""
        return {
            "held out": "held-out episodes",
            "trained on": "episodes trained on",
            "another dataset": "another dataset",
            "unknown": "perhaps trained on",
        }[self.basis]

    def to_dict(self) -> dict[str, object]:
        """The choice of episodes as plain values, for JSON."""
        return {
            "basis": self.basis,
            "sentence": self.sentence,
            "fit": self.fit.tolist(),
            "measured": self.measured.tolist(),
        }


def choose_measured(
    trained_on: Sequence[TrainedSource],
    source: ClipSource,
    deltas: list[int],
    *,
    held_out: float,
    seed: int,
    episodes: Sequence[int] | None = None,
) -> MeasuredEpisodes:
    """Choose the episodes of `source` on which a quantizer is measured.

    If the quantizer was trained on `source`, the episodes held out in training are measured. Otherwise, or if training
    held out none of `episodes`, episodes are chosen at random.

    Args:
        trained_on: Sources that the quantizer was trained on; see `trained_sources`.
        source: Source on which the quantizer is measured.
        deltas: Frames of a clip, relative to its first frame.
        held_out: Share of the episodes to measure if they are chosen at random, in (0, 1).
        seed: Seed of the random choice.
        episodes: Numbers of the episodes to use, for fitting and measuring together; None for all.

    Raises:
        ValueError: If `source` lacks one of `episodes`, or episodes must be chosen at random and fewer than two are
            long enough for a clip.
    """
    count = len(source.bounds)
    chosen = chosen_episodes(count, episodes, name=source.name)
    known = [part for part in trained_on if part.identity is not None]
    mine = source.identity()
    # Several sources may be of these recordings, each with episodes of its own.
    found = [part for part in known if part.identity is not None and part.identity.matches(mine)]
    seen = {number for part in found for number in part.seen_episodes(count)}
    held_out_then = {number for part in found for number in part.held_out_episodes} - seen
    unseen = torch.tensor(sorted(held_out_then), dtype=torch.int64)
    is_unseen = torch.isin(chosen, unseen)
    if is_unseen.any() and not is_unseen.all():
        measured = chosen[is_unseen]
        return MeasuredEpisodes(
            fit=chosen[~is_unseen],
            measured=measured,
            basis="held out",
            sentence=f"the LAQ was trained on this dataset; measured on the {with_noun(len(measured), 'episode')} of "
            f"{count} that its training held out",
        )
    usable = has_clip(source, deltas)[chosen]
    fit, measured = (chosen[part] for part in split_episodes(len(chosen), held_out=held_out, seed=seed, usable=usable))
    if not len(measured):
        raise ValueError(
            f"{source.name} has one episode with room for a clip of {max(deltas) + 1} frames, and measuring needs two: "
            "one to fit the probes on, one to score them"
        )
    drawn = f"measured on {with_noun(len(measured), 'episode')} of {len(chosen)}, chosen at random with seed {seed}"
    basis, sentence = _relation(known, seen if found else None, set(chosen.tolist()), count, drawn)
    return MeasuredEpisodes(fit=fit, measured=measured, basis=basis, sentence=sentence)


def _relation(
    known: Sequence[TrainedSource], seen: set[int] | None, chosen: set[int], count: int, drawn: str
) -> tuple[Basis, str]:
    """Relation of the `chosen` episodes to the training, and a sentence about it that ends with `drawn`.

    `seen` holds the episodes of the same recordings that were trained on; None if the training had other recordings.
    """
    if seen is not None:
        if not seen & chosen:
            return "held out", f"the LAQ was trained on this dataset, but on none of these episodes; {drawn}"
        which = "every episode" if seen == set(range(count)) else "some of these episodes"
        return "trained on", f"the LAQ was trained on {which} of this dataset; {drawn}"
    if known:
        names = ", ".join(dict.fromkeys(part.name for part in known))
        return "another dataset", (
            f"the LAQ was trained on other recordings ({names}); {drawn}; if the two share recordings, it may "
            "have been trained on these"
        )
    return "unknown", (
        f"the checkpoint does not say which recordings the LAQ was trained on, so perhaps on these; {drawn}"
    )
