"""`lerobot-rollout` on a robot without hardware, in both of its loops."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class
from lerobot.scripts import lerobot_rollout

from policy_workshop import Workshop
from robot_deployment import CAMERA_NAME, JOINTS, PretendArm, PretendArmConfig, predicted_chunk, save_policy

TASK = "Move the square to the right"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take back the signal handlers that the command installs, and what robots remember."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    handlers = [signal.getsignal(number) for number in signals]
    PretendArm.sent.clear()
    yield
    for number, handler in zip(signals, handlers, strict=True):
        signal.signal(number, handler)


def rollout(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> list[torch.Tensor]:
    """Actions that the robot was sent."""
    command = (
        "lerobot-rollout",
        "--robot.type=pretend_arm",
        f"--robot.calibration_dir={folder / 'calibration'}",
        f"--policy.path={folder}",
        "--device=cpu",
        "--fps=10",
        "--play_sounds=false",
        "--return_to_initial_position=false",
        *flags,
    )
    monkeypatch.setattr(sys, "argv", list(command))
    lerobot_rollout.main()
    return [torch.tensor([action[joint] for joint in JOINTS]) for action in PretendArm.sent]


def test_the_synchronous_loop_sends_the_policys_actions(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_policy(workshop, tmp_path / "policy", "hlrp_vla_direct")
    sent = rollout(monkeypatch, folder, f"--task={TASK}", "--duration=1")
    assert len(sent) >= 4
    observation = PretendArm(PretendArmConfig(calibration_dir=tmp_path)).get_observation()
    first = predicted_chunk(folder, observation, TASK)[:2]
    moved = dict(zip(JOINTS, first[1].tolist(), strict=True))
    second = predicted_chunk(folder, {**moved, CAMERA_NAME: observation[CAMERA_NAME]}, TASK)[:2]
    torch.testing.assert_close(torch.stack(sent[:4]), torch.cat([first, second]))


def test_without_a_task_nothing_moves(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_policy(workshop, tmp_path / "policy", "hlrp_vla_direct")
    with pytest.raises(ValueError, match="instruction"):
        rollout(monkeypatch, folder, "--duration=1")
    assert PretendArm.sent == []


@pytest.mark.parametrize(
    ("kind", "changes", "horizon"),
    [("hlrp_action_expert_direct", {"chunk_size": 12}, 6), ("hlrp_action_expert_latent", {"expert": "flow"}, 2)],
)
def test_real_time_chunking_continues_the_chunk_being_executed(
    workshop: Workshop,
    kind: str,
    changes: dict[str, Any],
    horizon: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_policy(workshop, tmp_path / "policy", kind, **changes)
    calls = watch_predictions(monkeypatch, kind)
    sent = rollout(
        monkeypatch,
        folder,
        f"--task={TASK}",
        "--duration=2",
        "--inference.type=rtc",
        f"--inference.rtc.execution_horizon={horizon}",
        "--inference.queue_threshold=10",
    )
    assert len(sent) >= 4
    assert all(action.isfinite().all() for action in sent)
    first, *later = calls
    assert first["prev_chunk_left_over"] is None
    assert all(call["prev_chunk_left_over"].shape == (horizon, 4) for call in later)
    assert all(call["inference_delay"] >= 1 for call in later)
    on_time = [call for call in later if call["prev_chunk_left_over"][0].any()]  # else the queue had run dry
    assert on_time
    for call in on_time:
        torch.testing.assert_close(call["answer"][0, 0], call["prev_chunk_left_over"][0], atol=0.1, rtol=0.1)


def test_without_flow_matching_there_is_no_real_time_chunking(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_policy(workshop, tmp_path / "policy", "hlrp_vla_direct")
    with pytest.raises(ValueError, match="RTC inference is not supported by policy type 'hlrp_vla_direct'"):
        rollout(monkeypatch, folder, f"--task={TASK}", "--duration=1", "--inference.type=rtc")


def watch_predictions(monkeypatch: pytest.MonkeyPatch, kind: str) -> list[dict[str, Any]]:
    """What policies of a type are asked and answer from now on."""
    policy_class = get_policy_class(kind)
    predict = policy_class.predict_action_chunk
    calls = []

    def watched(self: Any, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        answer = predict(self, batch, **kwargs)
        calls.append({**kwargs, "answer": answer})
        return answer

    monkeypatch.setattr(policy_class, "predict_action_chunk", watched)
    return calls
