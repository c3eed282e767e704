from __future__ import annotations

import logging
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from hlrp.latents import LatentSpec, fingerprint, log_offset, spec_to_dict

STATE = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "steps": torch.tensor(3),
    "flags": torch.tensor([True, False]),
}
SETTINGS = {"codebook_size": 8, "quantizer": "fsq"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 1}, "codebook_size must be 2 or more, got 1"),
        ({"code_seq_len": 0}, "code_seq_len must be 1 or more, got 0"),
        ({"num_frames": 1}, r"num_frames must be 2 or more, got 1"),
        ({"frame_offset_s": 0.0}, "frame_offset_s must be above 0, got 0.0"),
        ({"code_dim": 0}, "code_dim must be 1 or more, got 0"),
    ],
)
def test_an_impossible_geometry_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentSpec(**changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("num_frames", [2, 3, 5])
def test_t_frames_give_one_transition_fewer_and_s_codes_each(num_frames: int) -> None:
    spec = LatentSpec(num_frames=num_frames, code_seq_len=3)
    assert spec.num_transitions == num_frames - 1
    assert spec.num_codes == 3 * (num_frames - 1)


def test_the_offset_is_a_time_and_becomes_frames_by_the_frame_rate() -> None:
    spec = LatentSpec(frame_offset_s=0.1, num_frames=3)
    assert spec.frame_deltas(10) == [0, 1, 2]
    assert spec.frame_deltas(50) == [0, 5, 10]
    assert spec.frame_deltas(29.97) == [0, 3, 6]


def test_an_offset_under_one_frame_is_refused_with_the_shortest_possible() -> None:
    with pytest.raises(ValueError, match=r"under one frame at 4 fps; use 0.2500 or more"):
        LatentSpec(frame_offset_s=0.1).offset_frames(4)


@pytest.mark.parametrize(
    "changes", [{"codebook_size": 16}, {"code_seq_len": 2}, {"num_frames": 3}, {"frame_offset_s": 0.2}]
)
def test_codes_of_another_geometry_are_refused_by_the_field_that_differs(changes: dict[str, float]) -> None:
    spec = LatentSpec()
    other = replace(spec, **changes)  # pyright: ignore[reportArgumentType]
    ((name, value),) = changes.items()
    with pytest.raises(
        ValueError, match=f"{name} differs: the policy has {getattr(spec, name)}, the labels has {value}"
    ):
        spec.require_same_codes(other, this="the policy", that="the labels")


def test_codes_are_the_same_whatever_the_width_of_their_vectors() -> None:
    LatentSpec(code_dim=32).require_same_codes(LatentSpec(code_dim=8), this="a", that="b")


def test_a_spec_survives_its_plain_values() -> None:
    spec = LatentSpec(codebook_size=5, code_seq_len=2, num_frames=4, frame_offset_s=0.3, code_dim=7)
    assert LatentSpec(**spec_to_dict(spec)) == spec  # pyright: ignore[reportArgumentType]
    assert spec_to_dict(spec) == asdict(spec)


def test_the_fingerprint_ignores_the_order_in_which_things_are_named() -> None:
    name = fingerprint(STATE, SETTINGS)
    assert len(name) == 16
    assert int(name, 16) >= 0
    assert fingerprint(dict(reversed(STATE.items())), dict(reversed(SETTINGS.items()))) == name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight", torch.arange(6.0).reshape(3, 2)),
        ("weight", torch.arange(6.0).reshape(2, 3).double()),
        ("weight", torch.arange(6.0).reshape(2, 3).nextafter(torch.tensor(9.0))),
        ("steps", torch.tensor(4)),
        ("flags", torch.tensor([True, True])),
        ("other", torch.tensor(0.0)),
    ],
)
def test_the_fingerprint_changes_with_any_name_type_shape_or_bit(key: str, value: Tensor) -> None:
    assert fingerprint({**STATE, key: value}, SETTINGS) != fingerprint(STATE, SETTINGS)


def test_the_fingerprint_changes_with_any_setting() -> None:
    assert fingerprint(STATE, {**SETTINGS, "codebook_size": 9}) != fingerprint(STATE, SETTINGS)


def test_the_fingerprint_is_of_values_not_of_their_layout_in_memory() -> None:
    columns = STATE["weight"].T.contiguous().T
    assert not columns.is_contiguous()
    assert fingerprint({**STATE, "weight": columns}, SETTINGS) == fingerprint(STATE, SETTINGS)


@pytest.mark.parametrize(
    ("offset_s", "fps", "frames", "deviation"),
    [
        (0.25, 30, 8, "7% longer"),  # halfway between 7 and 8
        (0.25, 10, 2, "20% shorter"),  # halfway between 2 and 3
        (0.25, 5, 1, "20% shorter"),
        (0.1, 30, 3, None),
        (0.25, 29.97, 7, "7% shorter"),
        (0.5, 29.97, 15, None),
    ],
)
def test_an_offset_is_told_in_frames_and_a_large_deviation_is_warned_of(
    caplog: pytest.LogCaptureFixture, offset_s: float, fps: float, frames: int, deviation: str | None
) -> None:
    spec = LatentSpec(frame_offset_s=offset_s)
    with caplog.at_level(logging.INFO, logger="hlrp.latents"):
        log_offset(spec, fps, of="films")
    assert spec.offset_frames(fps) == frames
    assert caplog.messages[0].startswith(f"films: an offset of {offset_s:g} s is {frames} frames at {fps:g} fps, ")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (deviation is not None)
    assert deviation is None or f"{deviation} than frame_offset_s={offset_s:g}" in warnings[0]
