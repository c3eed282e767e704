"""The clips that stand for a code are typical of it, and do not show the same moment twice."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hlrp.data.labels import LabelMetadata, LatentLabels
from hlrp.latents import NO_LABEL, LatentSpec
from hlrp.measure.nearest_clips import nearest_clips

SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=1, num_frames=2, frame_offset_s=0.2)


def labels(codes: list[list[int]], vectors: list[list[float]], episode: list[int]) -> LatentLabels:
    """Labels at 10 Hz, so that a clip spans two frames."""
    given = torch.tensor(codes)
    return LatentLabels(
        metadata=LabelMetadata(
            laq_fingerprint="a", spec=SPEC, camera="top", fps=10.0, codebook=torch.zeros(2, 4, 1).tolist()
        ),
        codes=given,
        valid=(given != NO_LABEL).all(1),
        episode_index=torch.tensor(episode),
        frame_index=torch.arange(len(codes)),
        vectors=torch.tensor(vectors),
    )


def test_the_nearest_clips_of_different_episodes_come_first() -> None:
    found = nearest_clips(
        labels(
            codes=[[1, 0]] * 6 + [[2, 0], [NO_LABEL, NO_LABEL]],
            vectors=[[0.0, 0], [0.9, 0], [1.1, 0], [5.0, 0], [-3.0, 0], [2.0, 0], [7.0, 0], [1.0, 0]],
            episode=[0, 0, 0, 1, 1, 2, 2, 2],
        ),
        clips=3,
        codes=4,
        slots=1,
    )
    assert [(one.slot, one.code, one.frames) for one in found] == [(0, 1, [1, 5, 3]), (0, 2, [6])]
    assert [one.share for one in found] == [6 / 7, 1 / 7]


def test_clips_of_one_episode_do_not_overlap() -> None:
    one = labels(codes=[[1, 0]] * 8, vectors=[[float(i == 3), 0.0] for i in range(8)], episode=[0] * 8)
    (found,) = nearest_clips(one, clips=3, codes=4, slots=1)
    frames = sorted(found.frames)
    assert len(frames) > 1
    assert min(later - earlier for earlier, later in pairwise(frames)) > 2


def test_only_the_most_frequent_codes_are_shown_and_in_order() -> None:
    one = labels(codes=[[3, 0], [3, 0], [1, 0], [1, 0], [2, 0]], vectors=[[0.0, 0.0]] * 5, episode=[0, 1, 2, 3, 4])
    assert [found.code for found in nearest_clips(one, clips=1, codes=2, slots=1)] == [1, 3]
    assert {found.slot for found in nearest_clips(one, clips=1, codes=2, slots=8)} == {0, 1}


def test_labels_without_codes_are_refused() -> None:
    one = labels(codes=[[0, 0]], vectors=[[0.0, 0.0]], episode=[0])
    bare = LatentLabels(
        metadata=LabelMetadata(laq_fingerprint="a", spec=SPEC, camera="top", fps=10.0, codebook=[]),
        codes=torch.full((1, 2), NO_LABEL),
        valid=torch.ones(1, dtype=torch.bool),
        episode_index=one.episode_index,
        frame_index=one.frame_index,
        vectors=one.vectors,
    )
    with pytest.raises(ValueError, match="hold vectors but no codes"):
        nearest_clips(bare, clips=1, codes=1, slots=1)
