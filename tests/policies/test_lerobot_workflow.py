"""From a dataset to episodes in a simulator with LeRobot's own commands, for every policy type."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class
from safetensors.torch import load_file

from hlrp.sim.gl_backend import choose_gl_backend
from policies import lerobot_commands
from policies.lerobot_commands import policy_flags, pretrained, run_eval, run_train, train_flags
from policy_workshop import SMALL, Workshop
from tiny_datasets import CAMERA

STEPS, SAVED_AT = 24, 20


def new_policy(workshop: Workshop, kind: str) -> list[str]:
    """Flags of a fresh policy of debug size on the workshop's foundation model."""
    settings = {"chunk_size": 4, "n_action_steps": 2, "scheduler_warmup_steps": 2, **SMALL[kind]}
    return [f"--policy.type={kind}", *policy_flags(vla_checkpoint_path=workshop.foundation, **settings)]


def resume(whole: Path, copy: Path, step: str) -> None:
    """Continue a copy of a run from a checkpoint that is not its last."""
    shutil.copytree(whole, copy, symlinks=True)
    for later in (copy / "checkpoints").iterdir():
        if later.name != step:
            shutil.rmtree(later) if not later.is_symlink() else later.unlink()
    run_train(f"--config_path={pretrained(copy, step) / 'train_config.json'}", "--resume=true", f"--output_dir={copy}")


def same_weights(first: Path, second: Path) -> None:
    first_weights, second_weights = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert first_weights.keys() == second_weights.keys()
    for name, value in first_weights.items():
        torch.testing.assert_close(second_weights[name], value, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def changed(first: Path, second: Path) -> bool:
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    return any(not torch.equal(before[name], value) for name, value in after.items())


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(workshop: Workshop, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    flags = train_flags(workshop.dataset_root, whole, steps=4)
    policy = new_policy(workshop, "hlrp_action_expert_latent")  # its expert learns from noise
    run_train(*policy, *flags, "--save_freq=2")
    resume(whole, tmp_path / "resumed", "000002")
    assert changed(pretrained(whole, "000002"), pretrained(whole))
    same_weights(pretrained(tmp_path / "resumed", "000004"), pretrained(whole))


# ---- The whole workflow, for every type ----


@pytest.fixture(scope="module", params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(kind: str, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run of 24 steps that was saved after 20; read only."""
    output = tmp_path_factory.mktemp(kind) / "whole"
    flags = train_flags(workshop.dataset_root, output, steps=STEPS)
    run_train(*new_policy(workshop, kind), *flags, f"--save_freq={SAVED_AT}")
    return output


@pytest.mark.slow
def test_every_type_resumes_to_the_same_weights(whole: Path, tmp_path: Path) -> None:
    resume(whole, tmp_path / "resumed", f"{SAVED_AT:06d}")
    assert changed(pretrained(whole, f"{SAVED_AT:06d}"), pretrained(whole))
    same_weights(pretrained(tmp_path / "resumed", f"{STEPS:06d}"), pretrained(whole))


@pytest.mark.slow
def test_every_type_reloads_and_acts_as_it_did(whole: Path, kind: str, workshop: Workshop, tmp_path: Path) -> None:
    first = get_policy_class(kind).from_pretrained(pretrained(whole))
    first.save_pretrained(tmp_path / "again")
    second = get_policy_class(kind).from_pretrained(tmp_path / "again")
    seen = {key: workshop.batch([3, 20])[key] for key in (CAMERA, "observation.state", "task")}
    actions = []
    for policy in (first, second):
        torch.manual_seed(0)
        actions.append(policy.predict_action_chunk(seen))
    assert torch.isfinite(actions[0]).all()
    torch.testing.assert_close(actions[1], actions[0], atol=1e-6, rtol=0)
    same_weights(tmp_path / "again", pretrained(whole))


@pytest.mark.slow
def test_every_type_is_fine_tuned_from_its_path(whole: Path, workshop: Workshop, tmp_path: Path) -> None:
    output = tmp_path / "tuned"
    run_train(f"--policy.path={pretrained(whole)}", *train_flags(workshop.dataset_root, output, steps=2))
    assert changed(pretrained(whole), pretrained(output))
    assert load_file(pretrained(whole) / "model.safetensors").keys() == (
        load_file(pretrained(output) / "model.safetensors").keys()
    )


@pytest.mark.slow
def test_every_type_learns_with_adapters_and_resumes_them(whole: Path, workshop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    flags = train_flags(workshop.dataset_root, tmp_path / "lora", steps=2)
    # An adapter holds no buffers, and so not how many pictures have been shifted; hence no shift here.
    settings = policy_flags(freeze_vla=False, random_shift_px=0)
    adapters = ("--peft.method_type=LORA", "--peft.r=2")
    run_train(f"--policy.path={pretrained(whole)}", *settings, *flags, *adapters, "--save_freq=1")
    resume(tmp_path / "lora", tmp_path / "resumed", "000001")
    first, last, resumed = (
        load_file(pretrained(tmp_path / output, step) / "adapter_model.safetensors")
        for output, step in (("lora", "000001"), ("lora", "000002"), ("resumed", "000002"))
    )
    assert not (pretrained(tmp_path / "lora") / "model.safetensors").exists()
    assert any("lora_B" in name and not torch.equal(first[name], value) for name, value in last.items())
    torch.testing.assert_close(resumed, last, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("use_amp", [False, True])
def test_every_type_drives_the_simulator(whole: Path, tmp_path: Path, use_amp: bool) -> None:
    can_render()
    run_eval(
        f"--policy.path={pretrained(whole)}",
        *policy_flags(device="cpu", use_amp=use_amp),
        "--env.type=hlrp_metaworld",
        "--env.task=drawer-open-v3",
        "--env.episode_length=6",
        "--eval.n_episodes=2",
        "--eval.batch_size=2",
        "--eval.use_async_envs=false",
        f"--rename_map={json.dumps({'observation.image': CAMERA})}",
        f"--output_dir={tmp_path / 'eval'}",
    )
    told: dict[str, Any] = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert told["overall"]["n_episodes"] == 2
    assert all(math.isfinite(told["overall"][name]) for name in ("avg_sum_reward", "pc_success"))


@pytest.mark.slow
def test_two_processes_train_every_type_together(workshop: Workshop, tmp_path: Path) -> None:
    runs = [
        [*new_policy(workshop, kind), *train_flags(workshop.dataset_root, tmp_path / kind, steps=2)]
        for kind in sorted(SMALL)
    ]
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(
        [*launcher, lerobot_commands.__file__, json.dumps(runs)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("Effective batch size: 4 x 2 = 8") == len(runs)  # one process logs
    for kind in SMALL:
        state = tmp_path / kind / "checkpoints" / "last" / "training_state" / "training_step.json"
        assert json.loads(state.read_text())["num_processes"] == 2
        weights = load_file(pretrained(tmp_path / kind) / "model.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())
        get_policy_class(kind).from_pretrained(pretrained(tmp_path / kind))


@pytest.mark.slow
def test_compiled_blocks_train_to_the_same_weights(workshop: Workshop, tmp_path: Path) -> None:
    for name, is_compiled in (("plain", "false"), ("compiled", "true")):
        # In a process of its own: the checks of shapes that tests put into every function cannot be compiled.
        done = subprocess.run(
            [
                *(sys.executable, "-m", "lerobot.scripts.lerobot_train"),
                *new_policy(workshop, "hlrp_action_expert_direct"),
                *train_flags(workshop.dataset_root, tmp_path / name, steps=3),
                f"--policy.compile_model={is_compiled}",
            ],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    plain, compiled = (load_file(pretrained(tmp_path / name) / "model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def can_render() -> None:
    """Skip where Meta-World, or a display and any offscreen OpenGL library, is missing."""
    if importlib.util.find_spec("metaworld") is None:
        pytest.skip("Meta-World is not installed")
    try:
        choose_gl_backend()
    except FileNotFoundError as error:
        pytest.skip(str(error))
