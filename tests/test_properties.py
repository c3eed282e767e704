"""Properties that hold for all inputs: offsets, bounds of episodes, texts of action tokens, and batches of labels."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

pytest.importorskip("hypothesis", reason="installed with the extra `dev`")

from hypothesis import given, settings
from hypothesis import strategies as st

from hlrp.data.clip_starts import clip_is_valid, frames_left
from hlrp.data.dataset import episode_of_frame, frame_of_episode
from hlrp.data.dataset_paths import require_safe_templates
from hlrp.foundation.backends.qwen3vl.config import ActionTokens
from hlrp.latents import NO_LABEL, LatentActions, LatentSpec
from hlrp.report.cards.parts import markdown_text

quick = settings(max_examples=60, deadline=None)
lengths_of_episodes = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def bounds_of(lengths: list[int]) -> torch.Tensor:
    ends = torch.tensor(lengths).cumsum(0)
    return torch.stack([ends - torch.tensor(lengths), ends], dim=1)


@quick
@given(fps=st.floats(1, 240), offset=st.floats(0.001, 10), frames=st.integers(2, 6))
def test_an_offset_is_the_nearest_number_of_whole_frames(fps: float, offset: float, frames: int) -> None:
    spec = LatentSpec(frame_offset_s=offset, num_frames=frames)
    if round(offset * fps) < 1:
        with pytest.raises(ValueError, match="under one frame"):
            spec.frame_deltas(fps)
        return
    deltas = spec.frame_deltas(fps)
    assert (deltas[0], len(deltas)) == (0, frames)
    assert {later - earlier for earlier, later in pairwise(deltas)} == {deltas[1]}
    assert abs(deltas[1] / fps - offset) <= 0.5 / fps + 1e-9


@quick
@given(lengths=lengths_of_episodes, delta=st.integers(1, 40))
def test_a_clip_is_valid_exactly_if_it_ends_in_the_episode_where_it_starts(lengths: list[int], delta: int) -> None:
    bounds = bounds_of(lengths)
    episode = episode_of_frame(bounds)
    later = torch.arange(len(episode)) + delta
    stays = torch.tensor([int(f) < len(episode) and bool(episode[f] == e) for f, e in zip(later, episode, strict=True)])
    if not stays.any():
        with pytest.raises(ValueError, match="longest episode"):
            clip_is_valid(bounds, [0, delta])
        return
    assert torch.equal(clip_is_valid(bounds, [0, delta]), stays)
    assert torch.equal(frames_left(bounds) >= delta, stays)


@quick
@given(lengths=lengths_of_episodes)
def test_episode_and_place_in_it_are_the_frame(lengths: list[int]) -> None:
    bounds = bounds_of(lengths)
    episode, place = episode_of_frame(bounds), frame_of_episode(bounds)
    assert torch.equal(bounds[episode, 0] + place, torch.arange(sum(lengths)))
    assert bool((place < torch.tensor(lengths)[episode]).all())


@quick
@given(text=st.text(max_size=12), codes=st.lists(st.integers(0, 99), min_size=1, max_size=6))
def test_a_format_of_action_tokens_spells_every_code_differently_or_is_refused(text: str, codes: list[int]) -> None:
    if "{" in text or "}" in text:
        with pytest.raises(ValueError, match="no other brace"):
            ActionTokens(action_token_fmt=f"{text}{{i}}")
        return
    tokens = ActionTokens(action_token_fmt=f"{text}{{i}}")
    assert [tokens.spell(code).removeprefix(text) for code in codes] == [str(code) for code in codes]


@quick
@given(data=st.data(), batch=st.integers(1, 6), transitions=st.integers(1, 3), slots=st.integers(1, 4))
def test_labels_of_a_batch_keep_their_rows(data: st.DataObject, batch: int, transitions: int, slots: int) -> None:
    count = batch * transitions * slots
    values = data.draw(st.lists(st.integers(NO_LABEL, 7), min_size=count, max_size=count))
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    actions = LatentActions(torch.tensor(values).view(batch, transitions, slots), None, valid)
    joined = actions.as_labels()
    assert torch.equal(joined.counted, actions.counted)
    assert torch.equal(joined.require_codes().view(batch, transitions, slots), actions.require_codes())
    assert not bool((joined.targets() < 0).any())
    order = torch.tensor(data.draw(st.permutations(range(batch))))
    assert torch.equal(actions.rows(order).as_labels().require_codes(), joined.rows(order).require_codes())
    parts = LatentActions.joined([joined.rows(order[:1]), joined.rows(order[1:])])
    assert torch.equal(parts.require_codes(), joined.rows(order).require_codes())


@quick
@given(text=st.text(max_size=40))
def test_no_text_becomes_markup_in_a_card(text: str) -> None:
    shown = markdown_text(text)
    assert not set('<>`[]|*$"\\\n') & set(shown)


@quick
@given(template=st.text(alphabet="./{}:d0chunk_index", max_size=30))
def test_a_template_that_passes_stays_in_the_folder(template: str) -> None:
    try:
        require_safe_templates({"data_path": template})
    except ValueError:
        return
    path = template.format(chunk_index=0, file_index=0)
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert len(path) < 500
