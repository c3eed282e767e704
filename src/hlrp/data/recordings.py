"""Identify the recordings on which a quantizer was trained, to measure it on episodes that it was not trained on.

Shapes: e episodes on which probes are fitted, v episodes on which they are scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from hlrp.data.clips import TrainingSource, have_room, split_episodes
from hlrp.data.observation_sources import ObservationSource
from hlrp.data.sources import ClipSource
from hlrp.runtime.tables import counted


@dataclass(frozen=True, kw_only=True)
class RecordingIdentity:
    """Facts that tell one set of recordings from another without reading pixels."""

    name: str
    episodes: int
    """Number of episodes."""
    fps: float
    lengths: str
    """Digest of the lengths of all episodes."""
    actions: str | None
    """Digest of all actions; None if there are no actions."""

    @classmethod
    def of(cls, source: ClipSource) -> RecordingIdentity:
        """Identity of the recordings of `source`."""
        return cls(
            name=source.name,
            episodes=len(source.bounds),
            fps=source.fps,
            lengths=_digest(source.bounds),
            actions=None if source.actions is None else _digest(source.actions),
        )

    def matches(self, other: RecordingIdentity) -> bool:
        """Whether both are the same recordings in the same order, in whatever folder.

        Equal actions prove that recordings are the same. Without actions the names must be equal too, since episodes of
        equal length are common. Video files may be sampled at another frame rate, so that lengths may then differ.
        """
        if self.episodes != other.episodes or (self.fps == other.fps and self.lengths != other.lengths):
            return False
        if self.actions is None or other.actions is None:
            return self.actions is other.actions and self.name == other.name
        return self.fps == other.fps and self.actions == other.actions


def describe_source(part: TrainingSource, *, share: float) -> dict[str, object]:
    """Description of a training source for the checkpoint, as plain values.

    Args:
        part: The source and its split into training and held-out episodes.
        share: Share of the training clips that came from this source, in [0, 1].
    """
    identity = RecordingIdentity.of(part.source)
    return {
        "name": part.source.name,
        "share": share,
        "episodes": identity.episodes if part.chosen is None else len(part.chosen),
        "chosen_episodes": None if part.chosen is None else part.chosen.tolist(),
        "held_out_episodes": part.held_out.tolist(),
        "labelled_episodes": part.labelled.tolist(),
        "identity": asdict(identity),
    }


def describe_observations(source: ObservationSource, *, share: float) -> dict[str, object]:
    """Description of a dataset of stage 2 for the checkpoint, as plain values.

    Args:
        source: The dataset and its split into training and held-out frames.
        share: Share of the training frames that came from this dataset, in [0, 1].
    """
    trained = set(source.episode[source.train.index].tolist())
    episodes = sorted(set(source.episode.tolist()))
    return {
        "name": source.name,
        "share": share,
        "episodes": len(episodes),
        "held_out_episodes": [episode for episode in episodes if episode not in trained],
    }


Basis = Literal["held out", "trained on", "another dataset", "unknown"]


@dataclass(frozen=True, kw_only=True)
class MeasuredEpisodes:
    """Episodes of a source on which a trained quantizer is measured."""

    fit: Int[Tensor, " e"]
    """Episodes on which probes are fitted."""
    measured: Int[Tensor, " v"]
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
    trained_on: Mapping[str, Any], source: ClipSource, deltas: list[int], *, held_out: float, seed: int
) -> MeasuredEpisodes:
    """Choose the episodes of `source` on which a quantizer is measured.

    If the quantizer was trained on `source`, the episodes held out in training are measured. Otherwise, or if training
    held out none, episodes are drawn at random.

    Args:
        trained_on: `extra` of the quantizer's checkpoint, whose `sources` come from `describe_source`.
        source: Source on which the quantizer is measured.
        deltas: Frames of a clip, relative to its first frame.
        held_out: Share of the episodes to measure if they are drawn at random, in (0, 1).
        seed: Seed of the random draw.

    Raises:
        ValueError: If episodes must be drawn and fewer than two are long enough for a clip.
    """
    known = [part for part in trained_on.get("sources", []) if "identity" in part]
    found = next((part for part in known if _identity(part).matches(RecordingIdentity.of(source))), None)
    count = len(source.bounds)
    if found is not None and found["held_out_episodes"]:
        measured = torch.tensor(found["held_out_episodes"], dtype=torch.int64)
        every = torch.arange(count)
        return MeasuredEpisodes(
            fit=every[~torch.isin(every, measured)],
            measured=measured,
            basis="held out",
            sentence=f"the LAQ was trained on this dataset; measured on the {counted(len(measured), 'episode')} of "
            f"{count} that its training held out",
        )
    fit, measured = split_episodes(count, held_out=held_out, seed=seed, usable=have_room(source, deltas))
    if not len(measured):
        raise ValueError(
            f"{source.name} has one episode with room for a clip of {max(deltas) + 1} frames, and measuring needs two: "
            "one to fit the probes on, one to score them"
        )
    drawn = f"measured on {counted(len(measured), 'episode')} of {count}, drawn by seed {seed}"
    if found is not None:
        basis, sentence = "trained on", f"the LAQ was trained on every episode of this dataset; {drawn}"
    elif known:
        names = ", ".join(dict.fromkeys(part["name"] for part in known))
        basis = "another dataset"
        sentence = (
            f"the LAQ was trained on other recordings ({names}); {drawn}; if the two share recordings, it may "
            "have been trained on these"
        )
    else:
        basis = "unknown"
        sentence = f"the checkpoint does not say which recordings the LAQ was trained on, so perhaps on these; {drawn}"
    return MeasuredEpisodes(fit=fit, measured=measured, basis=basis, sentence=sentence)


def _identity(part: Mapping[str, Any]) -> RecordingIdentity:
    return RecordingIdentity(**part["identity"])


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:16]
