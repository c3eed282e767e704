"""The policy benchmark: its arithmetic, what it reads, and that it times what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import policy_latency
from benchmarks.policies import BenchConfig
from benchmarks.policy_latency import Entry, aims, make_entries
from benchmarks.policy_success import (
    POLICIES,
    Contest,
    Upstream,
    parameter_count,
    policy_flags,
    remaining_seconds,
    rows,
    run,
    seconds_per_step,
    steps_within,
    trained_seconds,
)

LOG = """INFO 2026-11-21 17:30:00 ot_train.py:221 {'batch_size': 64,
 'log_freq': 20,
INFO 2026-11-21 17:30:09 ot_train.py:400 num_total_params=402400 (402K)
Training:  16%|█▌        | 20/60 [00:21<01:53,  1.05s/step]\
INFO 17:34:41 step:20 smpl:1K ep:15 loss:0.9 grdn:1.4 lr:4.9e-04 updt_s:0.3 data_s:0.7
INFO 17:35:21 step:40 smpl:3K ep:30 loss:0.7 grdn:1.4 lr:4.2e-04 updt_s:0.4 data_s:0.6
INFO 17:35:49 step:60 smpl:4K ep:45 loss:0.7 grdn:1.2 lr:3.3e-04 updt_s:0.5 data_s:0.8
"""
"""Of lerobot-train."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train.log"
    path.write_text(LOG, encoding="utf-8")
    return path


def contest(folder: Path, **changes: Any) -> Contest:
    settings: dict[str, Any] = {
        "folder": folder,
        "dataset": folder / "there_is_none",
        "tasks": ("door-open-v3", "window-open-v3"),
        "minutes": 2.0,
        "eval_episodes": 2,
        "laq_steps": 1,
        "foundation_steps": 1,
        "calibration_steps": (1, 2),
    }
    return Contest(**{**settings, **changes})


def leave_behind(folder: Path, name: str) -> None:
    """A finished benchmark of one policy, as earlier runs leave it."""
    upstream = Upstream(folder / "labels", folder / "foundation", cpu_seconds=60.0, wall_seconds=70.0)
    for stage in ("laq", "labels", "foundation"):
        write(folder / stage / "cost.json", {"cpu_minutes": 1 / 3, "wall_minutes": 0.4})
    plan = {"minutes": 2.0, "upstream_seconds": 60.0, "seconds_per_step": 0.5, "steps": 120}
    write(folder / name / "plan.json", {**plan, "flags": policy_flags(POLICIES[name], upstream)})
    cost = {"train_seconds": 130.0, "upstream_seconds": 60.0, "cpu_minutes": 2.1, "steps": 120, "parameters": 4000}
    write(folder / name / "cost.json", {**cost, "resumed": False})
    per_task = [
        {"task_group": "door-open-v3", "task_id": 0, "metrics": {"successes": [True, True], "max_rewards": [1.0, 1.0]}},
        {"task_group": "window-open-v3", "task_id": 0, "metrics": {"successes": [False, True], "video_paths": []}},
    ]
    write(folder / name / "eval" / "eval_info.json", {"per_task": per_task, "overall": {"pc_success": 75.0}})


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_the_time_of_a_step_is_free_of_what_both_runs_spend_besides() -> None:
    assert seconds_per_step((10, 60), (15 + 10 * 0.4, 15 + 60 * 0.4)) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="tells nothing of the time of a step"):
        seconds_per_step((10, 60), (20.0, 19.0))


def test_stages_before_the_policy_are_paid_from_its_time() -> None:
    assert remaining_seconds(15, 540.0) == 360
    assert steps_within(360, 0.25) == 1440
    assert steps_within(0.1, 0.25) == 1
    with pytest.raises(ValueError, match=r"took 5\.0 of 4 minutes"):
        remaining_seconds(4, 300.0)


def test_training_time_and_size_are_read_from_the_log(log: Path) -> None:
    assert trained_seconds(log, 66) == pytest.approx(66 * (1.0 + 1.0 + 1.3) / 3)
    assert parameter_count(log) == 402400
    log.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="has no num_total_params"):
        parameter_count(log)


def test_the_policy_without_latents_differs_in_that_and_pays_for_no_stage_before_it() -> None:
    upstream = Upstream(Path("labels"), Path("foundation"), cpu_seconds=1.0, wall_seconds=1.0)
    with_latents, without = (
        POLICIES["hlrp_action_expert_latent"],
        POLICIES["hlrp_action_expert_latent_without"],
    )
    changed = set(policy_flags(without, upstream)) ^ set(policy_flags(with_latents, upstream))
    # Where no VLA is asked there is none to freeze, and no labels are read.
    unread = f"--policy.latent_labels_path={upstream.labels}"
    assert changed == {"--policy.latent_conditioning=false", "--policy.freeze_vla=true", unread}
    assert with_latents.pays_upstream
    assert not without.pays_upstream
    for name in ("act", "diffusion"):
        assert not POLICIES[name].pays_upstream
        assert not any("foundation" in flag for flag in policy_flags(POLICIES[name], upstream))


def test_what_is_finished_is_not_done_again_and_its_figures_are_read(tmp_path: Path) -> None:
    leave_behind(tmp_path, "hlrp_vla_direct")
    found = run(contest(tmp_path), ["hlrp_vla_direct"])  # there is no dataset: any training would fail
    assert list(found) == ["hlrp_vla_direct"]
    card = found["hlrp_vla_direct"]
    assert card["success_rate"] == 0.75
    assert card["episodes"] == 4
    assert card["tasks"] == {"door-open-v3": 1.0, "window-open-v3": 0.5}
    assert card["interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)  # Wilson's, for 3 of 4
    assert card["train_seconds"] == 130
    line = rows(found).splitlines()[2].split()
    assert line == ["hlrp_vla_direct", "75%", "30%–95%", "100%", "50%", "130", "120", "4,000"]


def test_other_settings_than_those_of_an_earlier_run_are_refused(tmp_path: Path) -> None:
    leave_behind(tmp_path, "act")
    with pytest.raises(ValueError, match="made with other settings"):
        run(contest(tmp_path, minutes=3.0), ["act"])


def test_figures_hold_no_policy_that_was_trained_for_another_time_or_evaluated_on_other_episodes(
    tmp_path: Path,
) -> None:
    leave_behind(tmp_path, "act")
    assert list(run(contest(tmp_path), [])) == ["act"]
    assert run(contest(tmp_path, minutes=3.0), []) == {}
    assert run(contest(tmp_path, eval_episodes=3), []) == {}


def test_an_unknown_policy_or_section_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policies must be some of hlrp_vla_direct, .*got pi0"):
        BenchConfig(policies=["act", "pi0"])
    with pytest.raises(ValueError, match="sections must be some of success, latency, got speed"):
        BenchConfig(sections=["speed"])


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    demo_only = {"_demo": policy_latency.SIZES["_demo"]}
    return make_entries(tmp_path_factory.mktemp("entries"), demo_only)


def test_the_networks_alone_make_the_same_chunk_as_the_policy(entries: dict[str, Entry]) -> None:
    compared = 0
    for name, entry in entries.items():
        if entry.bare is None:
            continue
        torch.manual_seed(1)
        chunk = entry.policy.predict_action_chunk(entry.chunk_batch)
        torch.manual_seed(1)
        with torch.no_grad():
            torch.testing.assert_close(entry.bare(), chunk, msg=lambda text, name=name: f"{name}: {text}")
        compared += 1
    assert compared == 4


def test_every_policy_makes_a_chunk_and_acts(entries: dict[str, Entry]) -> None:
    for name, entry in entries.items():
        entry.policy.reset()
        steps = 8 if "diffusion" in name else 16  # LeRobot's diffusion returns what is executed only
        with torch.no_grad():
            assert entry.policy.predict_action_chunk(dict(entry.chunk_batch)).shape == (1, steps, 4), name
        entry.policy.reset()
        assert entry.policy.select_action(dict(entry.step_batch)).shape == (1, 4), name


def test_our_expert_is_as_large_as_smolvla_on_the_same_vlm(entries: dict[str, Entry]) -> None:
    ours, theirs = (
        sum(parameter.numel() for parameter in entries[name].policy.parameters())
        for name in ("hlrp_action_expert_direct_smol_demo", "smolvla_demo")
    )
    assert ours == pytest.approx(theirs, rel=0.1)


def test_aims_are_ratios_of_chunk_times() -> None:
    found = {
        name: {"chunk_ms": ms}
        for ending in policy_latency.SIZES
        for name, ms in (
            (f"hlrp_vla_direct{ending}", 10.0),
            (f"hlrp_action_expert_direct_smol{ending}", 30.0),
            (f"smolvla{ending}", 25.0),
            ("diffusion", 400.0),
            ("diffusion_ddim10", 45.0),
        )
    }
    found["hlrp_vla_direct"]["overhead"] = 1.05
    checked = aims(found)
    assert checked["diffusion, its default steps, over hlrp_vla_direct"] == {"at_least": 5, "found": 40, "met": True}
    assert checked["diffusion, 10 DDIM steps, over hlrp_vla_direct"] == {"at_least": 5, "found": 4.5, "met": False}
    assert checked["hlrp_action_expert_direct_smol over smolvla"] == {"at_most": 1, "found": 1.2, "met": False}
    assert checked["hlrp_vla_direct over its networks"] == {"at_most": 1.1, "found": 1.05, "met": True}
    assert len(checked) == 7
