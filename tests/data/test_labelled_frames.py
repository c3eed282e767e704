from __future__ import annotations

from typing import Any

import pytest
import torch

from hlrp.data.frames import CachedFrames, StackedFrames
from hlrp.data.labelled_frames import (
    FramePool,
    LabelledFrames,
    Observations,
    OnlineLabelFrames,
    OrderedBatches,
    ShuffledBatches,
)
from hlrp.foundation.online_labels import OnlineLabelBatch
from hlrp.latents import LatentActions
from labelled_batch import codes_of

FRAMES = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
LABELLED = torch.tensor([1, 2, 3, 5, 8, 13, 14, 15, 16, 17])


def observations() -> Observations:
    """Frame `i` is filled with `i` and, for the second camera, with 100 + `i`; its sentence says `i` too."""
    return Observations([CachedFrames(FRAMES), CachedFrames(FRAMES + 100)], [f"frame {i}" for i in range(20)])


def source(shift: int = 0) -> LabelledFrames:
    """Codes of frame `i` are `i`, or `i + shift`."""
    return LabelledFrames(observations(), LatentActions.of_codes(shift + torch.arange(20)[:, None].expand(-1, 4)))


def test_a_batch_pairs_every_frame_with_its_own_sentence_and_codes() -> None:
    batch = source().batch(torch.tensor([5, 3]))
    assert batch.images.shape == (2, 2, 3, 2, 2)
    torch.testing.assert_close(255 * batch.images[:, :, 0, 0, 0], torch.tensor([[5.0, 105.0], [3.0, 103.0]]))
    assert batch.instructions == ["frame 5", "frame 3"]
    assert codes_of(batch)[:, 0].tolist() == [5, 3]


def seen(data: ShuffledBatches, steps: range) -> list[int]:
    return [int(i) for step in steps for i in codes_of(data[step])[:, 0]]  # pyright: ignore[reportOptionalSubscript]


def shuffled(seed: int = 0, batch_size: int = 5) -> ShuffledBatches:
    return ShuffledBatches([FramePool(source(), LABELLED)], batch_size=batch_size, num_batches=8, seed=seed)


def test_an_epoch_shows_every_labelled_frame_once_and_no_other() -> None:
    for first in (0, 2, 4):
        assert sorted(seen(shuffled(), range(first, first + 2))) == LABELLED.tolist()
    assert seen(shuffled(), range(2)) != seen(shuffled(), range(2, 4))


def test_a_batch_depends_on_its_step_and_the_seed_alone() -> None:
    forwards, backwards = shuffled(), shuffled()
    wanted = [seen(forwards, range(step, step + 1)) for step in range(8)]
    found = [seen(backwards, range(step, step + 1)) for step in reversed(range(8))]
    assert found[::-1] == wanted
    assert seen(shuffled(seed=1), range(8)) != seen(shuffled(), range(8))


def test_a_batch_is_never_larger_than_the_data() -> None:
    assert sorted(seen(shuffled(batch_size=64), range(1))) == LABELLED.tolist()


def test_validation_reads_every_frame_once_in_order() -> None:
    data = OrderedBatches([FramePool(source(), LABELLED)], batch_size=4)
    assert [len(batch) for batch in data] == [4, 4, 2]  # pyright: ignore[reportArgumentType]
    assert [int(i) for batch in data for i in codes_of(batch)[:, 0]] == LABELLED.tolist()  # pyright: ignore[reportOptionalSubscript]


def test_the_order_of_an_epoch_is_drawn_once_and_is_what_its_seed_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    randperm = torch.randperm

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        drawn.append(args)
        return randperm(*args, **kwargs)

    data = shuffled(seed=3)
    monkeypatch.setattr(torch, "randperm", counted)
    found = [seen(data, range(epoch * 2, epoch * 2 + 2)) for epoch in (0, 1, 0)]  # of two steps each
    assert len(drawn) == 3
    for epoch in (0, 1):
        order = randperm(len(LABELLED), generator=torch.Generator().manual_seed(3_000_009 + epoch))
        assert found[epoch] == LABELLED[order].tolist()
    assert found[2] == found[0]


def test_the_parts_of_a_batch_are_equal_and_make_it_whole() -> None:
    data = shuffled(batch_size=6)
    whole = seen(data, range(1))
    parts = [codes_of(data.part(0, index, 3))[:, 0].tolist() for index in range(3)]  # pyright: ignore[reportOptionalSubscript]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert [place for part in parts for place in part] == whole


def test_a_batch_that_does_not_divide_says_what_would() -> None:
    with pytest.raises(ValueError, match=r"batch_size=5 does not divide into 2 equal parts.*use a multiple of 2"):
        shuffled(batch_size=5).part(0, 0, 2)


def mixed(weights: tuple[float | None, float | None], steps: int = 200) -> ShuffledBatches:
    """Ten frames of one dataset, and five of another whose codes are 100 higher."""
    pools = [FramePool(source(), LABELLED, weights[0]), FramePool(source(100), LABELLED[:5], weights[1])]
    return ShuffledBatches(pools, batch_size=5, num_batches=steps, seed=0)


def test_without_weights_every_frame_of_every_dataset_comes_once_an_epoch() -> None:
    expected = sorted([*LABELLED.tolist(), *(100 + LABELLED[:5]).tolist()])
    assert sorted(seen(mixed((None, None)), range(3))) == expected


def test_weights_are_shares_of_the_samples() -> None:
    codes = torch.tensor(seen(mixed((1.0, 3.0)), range(200)))
    assert abs(float((codes >= 100).double().mean()) - 0.75) < 0.04
    assert set(codes.tolist()) == {*LABELLED.tolist(), *(100 + LABELLED[:5]).tolist()}


def test_a_mixed_batch_keeps_picture_sentence_and_codes_together() -> None:
    batch = mixed((1.0, 1.0))[0]
    codes = codes_of(batch)[:, 0]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalSubscript]
    assert len(codes.unique()) > 1
    assert batch.instructions == [f"frame {int(i) % 100}" for i in codes]  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(255 * batch.images[:, 0, 0, 0, 0], (codes % 100).float())  # pyright: ignore[reportAttributeAccessIssue]


def test_weights_for_some_datasets_only_are_refused() -> None:
    with pytest.raises(ValueError, match="give every source a weight or none"):
        mixed((1.0, None))


def test_a_quantizers_clip_starts_at_the_frame_that_the_model_sees() -> None:
    frames = OnlineLabelFrames(observations(), StackedFrames([CachedFrames(FRAMES)]), [0, 2, 4])
    pools = [FramePool(frames, LABELLED[:4], 1.0), FramePool(frames, LABELLED[4:7], 1.0)]
    batch = ShuffledBatches(pools, batch_size=6, num_batches=1, seed=0)[0]
    assert isinstance(batch, OnlineLabelBatch)
    assert batch.observations.labels is None
    now = (255 * batch.observations.images[:, 0, 0, 0, 0]).round().long()
    assert torch.equal(batch.clips[:, :, 0, 0, 0, 0].long(), now[:, None] + torch.tensor([0, 2, 4]))
