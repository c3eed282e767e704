"""Stages of the demo: which commands it runs, with which flags, in which order, and how each is resumed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hlrp.demo.config import LOG_STEPS, DemoConfig
from hlrp.demo.stages import Stage

EVAL_SEED = 1000
"""First seed of evaluation episodes, LeRobot's default. Demonstrations use seeds from 100,000 on, so that no policy is
evaluated on an episode it was trained on."""

OUR_POLICY = "hlrp_vla_direct"
TRAINING_STAGES = ("laq", "labels", "foundation", OUR_POLICY)
"""Stages that count as training of our policy; the baseline trains for the sum of their times."""


def main_stages(config: DemoConfig) -> list[Stage]:
    """Return the stages from recording demonstrations to evaluating our policy, in order."""
    return [
        _demonstrations(config),
        _laq(config),
        Stage(
            name="labels",
            title="Label every frame with its latent action",
            command=_hlrp(
                "precompute_latent_codes",
                f"--dataset_root={config.dataset}",
                f"--laq_path={config.laq}",
                "--overwrite=true",
            ),
        ),
        _foundation(config),
        _lerobot_train(
            config,
            OUR_POLICY,
            "Stage 3: train the robot policy with lerobot-train",
            f"--policy.vla_checkpoint_path={config.foundation}",
            f"--steps={config.policy_steps}",
            f"--save_freq={max(config.policy_steps // 5, 1)}",
            f"--batch_size={config.batch_size}",
        ),
        _lerobot_eval(config, OUR_POLICY, "Evaluate the policy in simulation with lerobot-eval"),
    ]


def act_stages(config: DemoConfig, *, seconds: float) -> list[Stage]:
    """Return the stages of the baseline: train LeRobot's ACT for `seconds` on the same episodes, then evaluate it.

    ACT has smaller networks and a higher learning rate than by default, which suits minutes of training on a CPU.
    """
    return [
        _lerobot_train(
            config,
            "act",
            f"Baseline: train LeRobot's ACT for {seconds:.0f} s",
            "--policy.pretrained_backbone_weights=null",
            "--policy.chunk_size=20",
            "--policy.n_action_steps=10",
            "--policy.dim_model=256",
            "--policy.dim_feedforward=1024",
            "--policy.optimizer_lr=1e-4",
            "--steps=1000000",  # never reached: the time limit ends the training
            "--save_freq=25",  # the last checkpoint before the time limit is evaluated
            f"--batch_size={config.batch_size}",
            time_limit_s=seconds,
        ),
        _lerobot_eval(config, "act", "Evaluate the baseline"),
    ]


def _demonstrations(config: DemoConfig) -> Stage:
    return Stage(
        name="demonstrations",
        title="Record demonstrations of Meta-World's scripted experts",
        command=_hlrp(
            "collect_demos",
            f"--output_dir={config.dataset}",
            f"--tasks=[{','.join(config.tasks)}]",
            f"--episodes_per_task={config.episodes_per_task}",
            f"--image_size={config.image_size}",
            f"--seed={config.seed}",
        ),
        resume=partial(start_over, config.dataset),
    )


def _laq(config: DemoConfig) -> Stage:
    command = _hlrp(
        "train_laq",
        f"--dataset_root={config.dataset}",
        f"--output_dir={config.laq}",
        f"--preset={config.laq_preset}",
        f"--image_size={config.image_size}",
        f"--steps={config.laq_steps}",
        f"--batch_size={config.batch_size}",
        f"--seed={config.seed}",
    )
    return Stage(
        name="laq",
        title="Stage 1: learn latent actions from the video alone",
        command=command,
        resume=partial(_resume_hlrp, config.laq, command),
    )


def _foundation(config: DemoConfig) -> Stage:
    command = _hlrp(
        "train_foundation",
        f"--dataset_root={config.dataset}",
        f"--output_dir={config.foundation}",
        f"--steps={config.foundation_steps}",
        f"--batch_size={config.batch_size}",
        f"--seed={config.seed}",
    )
    return Stage(
        name="foundation",
        title="Stage 2: teach a small Qwen3-VL to predict the codes",
        command=command,
        resume=partial(_resume_hlrp, config.foundation, command),
    )


def _hlrp(module: str, *flags: str) -> tuple[str, ...]:
    """Command line of an `hlrp-*` command."""
    # As a module of this interpreter: the installed scripts may not be on the PATH.
    return (sys.executable, "-m", f"hlrp.cli.{module}", *flags)


def _lerobot_train(
    config: DemoConfig, policy: str, title: str, *flags: str, time_limit_s: float | None = None
) -> Stage:
    output = config.training(policy)
    command = (
        *_lerobot("train"),
        f"--policy.type={policy}",
        "--policy.push_to_hub=false",
        "--dataset.repo_id=local/hlrp_demos",
        f"--dataset.root={config.dataset}",
        "--num_workers=0",
        f"--log_freq={LOG_STEPS}",
        f"--seed={EVAL_SEED + config.seed}",
        f"--output_dir={output}",
        *flags,
    )
    return Stage(
        name=policy,
        title=title,
        command=command,
        resume=partial(_resume_lerobot, output),
        time_limit_s=time_limit_s,
    )


def _lerobot_eval(config: DemoConfig, policy: str, title: str) -> Stage:
    output = config.evaluation(policy)
    return Stage(
        name=f"eval_{policy}",
        title=title,
        command=evaluation_command(
            *evaluation_flags(
                config.training(policy) / "checkpoints" / "last" / "pretrained_model",
                output,
                tasks=config.tasks,
                episodes_per_task=config.eval_episodes_per_task,
                episode_length=config.episode_length,
                seed=EVAL_SEED,
                processes=sys.platform == "linux",  # elsewhere, starting them takes longer than they save
            ),
            f"--env.observation_height={config.image_size}",
            f"--env.observation_width={config.image_size}",
        ),
        resume=partial(start_over, output),
        imports_meanwhile="hlrp.demo.results",
    )


def evaluation_command(*flags: str) -> tuple[str, ...]:
    """Return the command line of lerobot-eval with `flags`, such as those of `evaluation_flags`."""
    return (*_lerobot("eval"), *flags)


def evaluation_flags(
    policy: Path,
    output: Path,
    *,
    tasks: Sequence[str],
    episodes_per_task: int,
    episode_length: int,
    seed: int,
    processes: bool = False,
) -> tuple[str, ...]:
    """Return the options of lerobot-eval for the policy in the folder `policy`, which write to the folder `output`.

    With `processes`, every simulation runs in a process of its own; the results are the same.
    """
    return (
        f"--policy.path={policy}",
        "--env.type=hlrp_metaworld",
        f"--env.task={','.join(tasks)}",
        f"--env.episode_length={episode_length}",
        f"--eval.n_episodes={episodes_per_task}",
        f"--eval.batch_size={min(episodes_per_task, 5)}",  # simulations that run together
        f"--eval.use_async_envs={str(processes).lower()}",
        f"--seed={seed}",
        f"--output_dir={output}",
    )


def _lerobot(script: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"lerobot.scripts.lerobot_{script}")


def start_over(output: Path) -> None:
    """Remove what an interrupted stage left behind, since the stage cannot be continued."""
    shutil.rmtree(output, ignore_errors=True)


def _resume_hlrp(output: Path, command: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the command that resumes an `hlrp-train-*` run; None, after clearing up, if no state was saved."""
    scratch = output.with_name(f"{output.name}.training")
    if (scratch / "last.ckpt").is_file() and not output.exists():
        return (*command, "--resume=true")
    start_over(scratch)
    start_over(output)  # a complete checkpoint is possible here: the demo stopped before it noted the stage as done
    return None


def _resume_lerobot(output: Path) -> tuple[str, ...] | None:
    """Return the command that resumes a lerobot-train run; None, after clearing up, if no checkpoint was saved."""
    flags = resume_flags(output)
    return None if flags is None else (*_lerobot("train"), *flags)


def resume_flags(output: Path) -> tuple[str, ...] | None:
    """Return the options with which lerobot-train continues the run in the folder `output` from its newest checkpoint.

    Returns:
        None if no checkpoint was completed; the folder `output` is then removed, since lerobot-train refuses to start
        in a folder that exists.
    """
    last = output / "checkpoints" / "last"
    if not (last.exists() or last.is_symlink()):
        _restore_last(last)
    saved = last / "pretrained_model" / "train_config.json"
    if saved.is_file():
        return (f"--config_path={saved}", "--resume=true")
    start_over(output)
    return None


def _restore_last(last: Path) -> None:
    """Make the link `last` to the newest checkpoint anew, if LeRobot was killed while it replaced the link.

    LeRobot completes a checkpoint, removes the link to the one before, and makes the new link. So if there are several
    checkpoints and no link, the newest is complete. A single checkpoint without a link may be half written.
    """
    steps = sorted((path.name for path in last.parent.glob("*") if path.name.isdigit()), key=int)
    if len(steps) > 1:
        last.symlink_to(steps[-1])
