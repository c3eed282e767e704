"""Success rates of HLRP's policies, with and without latents, and of ACT and diffusion policy, at equal training time.

Every policy trains with `lerobot-train` on one thread, two policies at a time, for the same time. The time of LAQ,
labels and foundation model counts as training time of the policies that use them. lerobot-train takes a number of
steps instead of a time, and the learning rate depends on this number. So two short runs of the same command measure the
CPU seconds of a step, from which the number of steps follows; CPU time hardly depends on other work on the machine.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.policy_runs import eval_flags, train_flags
from benchmarks.running import Cost, run_command, side_by_side
from hlrp.demo.evaluation_files import success
from hlrp.demo.pipeline import EVAL_SEED, resume_flags
from hlrp.report.curves import read_lerobot_log
from hlrp.runtime.tables import table
from hlrp.storage.files import write_json

_EPISODE_LENGTH = 200
"""Steps an evaluation episode may take; the experts need fewer than 100."""
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class PolicyEntry:
    """A policy and how it is trained here."""

    policy_type: str
    on_foundation: bool
    """Whether the policy starts from the foundation checkpoint."""
    reads_labels: bool
    """Whether the policy learns from latent labels."""
    pays_upstream: bool
    """Whether the time of LAQ, labels and foundation model counts as training time of the policy."""
    flags: tuple[str, ...] = ()


def _ours(policy_type: str, *flags: str, reads_labels: bool = True, pays_upstream: bool = True) -> PolicyEntry:
    return PolicyEntry(
        policy_type=policy_type,
        on_foundation=True,
        reads_labels=reads_labels,
        pays_upstream=pays_upstream,
        flags=flags,
    )


def _theirs(policy_type: str, *flags: str) -> PolicyEntry:
    return PolicyEntry(
        policy_type=policy_type, on_foundation=False, reads_labels=False, pays_upstream=False, flags=flags
    )


POLICIES = {
    "hlrp_vla_direct": _ours("hlrp_vla_direct"),
    "hlrp_action_expert_latent": _ours("hlrp_action_expert_latent", "--policy.freeze_vla=true"),
    "hlrp_action_expert_direct": _ours("hlrp_action_expert_direct", reads_labels=False),
    # The VLM is loaded but not used: without latent conditioning, nothing of stages 1 and 2 affects the actions.
    "hlrp_action_expert_latent_without": _ours(
        "hlrp_action_expert_latent", "--policy.latent_conditioning=false", reads_labels=False, pays_upstream=False
    ),
    "act": _theirs(
        "act",
        "--policy.pretrained_backbone_weights=null",
        "--policy.chunk_size=20",
        "--policy.n_action_steps=10",
        "--policy.dim_model=256",
        "--policy.dim_feedforward=1024",
        "--policy.optimizer_lr=1e-4",
        "--policy.optimizer_lr_backbone=1e-4",  # a tenth of that is meant for pretrained weights
    ),
    "diffusion": _theirs(
        "diffusion",
        "--policy.pretrained_backbone_weights=null",
        "--policy.use_group_norm=true",
        "--policy.n_obs_steps=1",  # half the time of a step; these tasks need no history
        "--policy.horizon=16",
        "--policy.n_action_steps=8",
        "--policy.crop_shape=[56,56]",
        "--policy.down_dims=[64,128,256]",
        "--policy.noise_scheduler_type=DDIM",
        "--policy.num_inference_steps=10",
        "--policy.prediction_type=sample",  # learns in far fewer steps than epsilon
        "--policy.optimizer_lr=5e-4",
        "--policy.scheduler_warmup_steps=50",
    ),
}
"""Policies by their name in the results. LeRobot's defaults suit pretrained weights, large images and hours on a GPU;
the sizes and learning rates here suit minutes on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Settings that all policies share."""

    folder: Path
    """Folder of all results, with a folder for each policy."""
    dataset: Path
    tasks: tuple[str, ...]
    minutes: float
    """Training time of each policy."""
    eval_episodes: int
    """Evaluation episodes of each task."""
    laq_steps: int
    foundation_steps: int
    calibration_steps: tuple[int, int]
    """Numbers of steps of the two short runs that measure the time of a step."""


@dataclass(frozen=True)
class Upstream:
    """Results of stages 1 and 2, and the time they took."""

    labels: Path
    foundation: Path
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Plan:
    """How long a policy trains. The plan is kept in `plan.json`, so that a resumed run has the same number of steps."""

    minutes: float
    flags: list[str]
    """Options of lerobot-train for the policy."""
    upstream_seconds: float
    """CPU seconds spent on LAQ, labels and foundation model; 0 if they do not count for the policy."""
    seconds_per_step: float
    """CPU seconds of one training step."""
    steps: int


def run(contest: Contest, names: Sequence[str]) -> dict[str, Any]:
    """Train and evaluate the policies `names`, unless done earlier; returns the results of all finished policies."""
    upstream = train_upstream(contest)
    side_by_side([partial(_train_and_evaluate, contest, upstream, name) for name in names])
    finished = [name for name in POLICIES if _is_finished(contest, name)]
    return {name: figures(contest.folder / name) for name in finished}


def train_upstream(contest: Contest) -> Upstream:
    """Train the LAQ, make the labels and train the foundation model, unless done earlier."""
    dataset = f"--dataset_root={contest.dataset}"
    laq, labels, foundation = (contest.folder / name for name in ("laq", "labels", "foundation"))
    costs = [
        _once(laq, "hlrp.cli.train_laq", dataset, f"--steps={contest.laq_steps}"),
        _once(labels, "hlrp.cli.precompute_latent_codes", dataset, f"--laq_path={laq}"),
        _once(
            foundation,
            "hlrp.cli.train_foundation",
            dataset,
            f"--labels_path={labels}",
            f"--steps={contest.foundation_steps}",
            f"--batch_size={_BATCH_SIZE}",
        ),
    ]
    return Upstream(
        labels,
        foundation,
        cpu_seconds=60 * sum(cost.cpu_minutes for cost in costs),
        wall_seconds=60 * sum(cost.wall_minutes for cost in costs),
    )


def _once(output: Path, module: str, *flags: str) -> Cost:
    """Make `output`, if not done earlier, and return its cost.

    An interrupted run starts over, since the cost of its first part is not known.
    """
    record = output / "cost.json"
    if not record.is_file():
        for leftover in (output, output.with_name(f"{output.name}.training")):
            shutil.rmtree(leftover, ignore_errors=True)
        print(f"making {output}", flush=True)
        cost = run_command(module, f"--output_dir={output}", *flags, log=output.with_suffix(".log"))
        write_json(record, asdict(cost))
    return Cost(**json.loads(record.read_text(encoding="utf-8")))


def _train_and_evaluate(contest: Contest, upstream: Upstream, name: str) -> None:
    folder = contest.folder / name
    flags = policy_flags(POLICIES[name], upstream)
    plan = _plan(contest, name, flags, upstream_seconds=upstream.cpu_seconds)
    if not (folder / "cost.json").is_file():
        print(f"training {name}: {plan.steps} steps of {plan.seconds_per_step:.3f} s", flush=True)
        cost = _train(contest, folder, plan)
        write_json(folder / "cost.json", _spent(folder / "train.log", plan, cost, upstream.wall_seconds))
    if not _is_finished(contest, name):
        print(f"evaluating {name}", flush=True)
        shutil.rmtree(folder / "eval", ignore_errors=True)
        policy = folder / "train" / "checkpoints" / "last" / "pretrained_model"
        flags = eval_flags(
            policy, folder / "eval", tasks=contest.tasks, episodes=contest.eval_episodes, steps=_EPISODE_LENGTH
        )
        run_command("lerobot.scripts.lerobot_eval", *flags, log=folder / "eval.log")
    found = success(folder / "eval" / "eval_info.json")
    print(f"{name}: {found['success_rate']:.1%} of {found['episodes']} episodes", flush=True)


def policy_flags(entry: PolicyEntry, upstream: Upstream) -> list[str]:
    """Return the options of lerobot-train that describe the policy."""
    return [
        f"--policy.type={entry.policy_type}",
        *([f"--policy.vla_checkpoint_path={upstream.foundation}"] if entry.on_foundation else ()),
        *([f"--policy.latent_labels_path={upstream.labels}"] if entry.reads_labels else ()),
        *entry.flags,
    ]


def _plan(contest: Contest, name: str, flags: list[str], *, upstream_seconds: float) -> Plan:
    """Return the saved plan of a policy; without one, measure two short runs and make a plan.

    Raises:
        ValueError: If the saved plan was made with other settings.
    """
    folder = contest.folder / name
    path = folder / "plan.json"
    if path.is_file():
        plan = Plan(**json.loads(path.read_text(encoding="utf-8")))
        if (plan.minutes, plan.flags) != (contest.minutes, flags):
            raise ValueError(f"{folder} was made with other settings; remove it, or name another output")
        return plan
    paid = upstream_seconds if POLICIES[name].pays_upstream else 0.0
    budget = remaining_seconds(contest.minutes, paid)
    seconds = [60 * _short_run(contest, folder, flags, steps).cpu_minutes for steps in contest.calibration_steps]
    step = seconds_per_step(contest.calibration_steps, seconds)
    plan = Plan(contest.minutes, flags, paid, step, steps_within(budget, step))
    write_json(path, asdict(plan))
    return plan


def remaining_seconds(minutes: float, upstream_seconds: float) -> float:
    """Return the training time, in seconds, that remains for a policy after stages 1 and 2.

    Raises:
        ValueError: If no time remains.
    """
    left = 60 * minutes - upstream_seconds
    if left <= 0:
        raise ValueError(
            f"LAQ, labels and foundation took {upstream_seconds / 60:.1f} of {minutes:g} minutes, which leaves the "
            "policies that use them no time to train; give all policies more --minutes"
        )
    return left


def seconds_per_step(steps: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the seconds of one step, from a shorter and a longer run; the time of start-up and end cancels out.

    Raises:
        ValueError: If the longer run did not take longer.
    """
    step = (seconds[1] - seconds[0]) / (steps[1] - steps[0])
    if step <= 0:
        raise ValueError(
            f"{steps[1]} steps took {seconds[1]:.1f} s and {steps[0]} steps {seconds[0]:.1f} s, which tells nothing of "
            "the time of a step; give it longer runs"
        )
    return step


def steps_within(budget_seconds: float, step_seconds: float) -> int:
    """Return the number of whole steps that fit the time, at least one."""
    return max(int(budget_seconds / step_seconds), 1)


def _short_run(contest: Contest, folder: Path, flags: list[str], steps: int) -> Cost:
    output = folder / "calibration"
    shutil.rmtree(output, ignore_errors=True)
    shared = _shared_flags(contest, output, steps)
    log = folder / f"calibration_{steps}.log"
    cost = run_command("lerobot.scripts.lerobot_train", *flags, *shared, "--save_checkpoint=false", log=log)
    shutil.rmtree(output, ignore_errors=True)
    return cost


def _train(contest: Contest, folder: Path, plan: Plan) -> dict[str, Any]:
    """Train the policy, or resume from its last checkpoint; returns the cost of this run."""
    output, log = folder / "train", folder / "train.log"
    resumed = resume_flags(output)
    new = (*plan.flags, *_shared_flags(contest, output, plan.steps), f"--save_freq={max(plan.steps // 5, 1)}")
    cost = run_command("lerobot.scripts.lerobot_train", *(resumed or new), log=log, append=bool(resumed))
    return {**asdict(cost), "resumed": bool(resumed)}


def _shared_flags(contest: Contest, output: Path, steps: int) -> list[str]:
    data = ["--dataset.repo_id=local/hlrp_demos", f"--dataset.root={contest.dataset}"]
    return [*data, *train_flags(output, steps=steps, batch_size=_BATCH_SIZE, seed=EVAL_SEED, device="cpu")]


def _is_finished(contest: Contest, name: str) -> bool:
    """Return whether a policy was trained for `contest.minutes` and evaluated on `contest.eval_episodes` per task."""
    folder = contest.folder / name
    evaluation = folder / "eval" / "eval_info.json"
    if not (folder / "cost.json").is_file() or not evaluation.is_file():
        return False
    minutes = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["minutes"]
    episodes = success(evaluation)["episodes"]
    return minutes == contest.minutes and episodes == contest.eval_episodes * len(contest.tasks)


def _spent(log: Path, plan: Plan, cost: Mapping[str, Any], upstream_wall_seconds: float) -> dict[str, Any]:
    """Return the cost of training, for `cost.json`."""
    wall = trained_seconds(log, plan.steps)
    return {
        # On one free core; a busy one takes longer by the clock.
        "train_seconds": plan.upstream_seconds + plan.steps * plan.seconds_per_step,
        "wall_seconds": wall + (upstream_wall_seconds if plan.upstream_seconds else 0.0),
        "upstream_seconds": plan.upstream_seconds,
        # The CPU time of the interrupted part of a resumed run is not known.
        "cpu_minutes": None if cost["resumed"] else cost["cpu_minutes"] + plan.upstream_seconds / 60,
        "steps": plan.steps,
        "parameters": parameter_count(log),
        "resumed": cost["resumed"],
    }


def trained_seconds(log: Path, steps: int) -> float:
    """Return the wall time of `steps` training steps with data loading, from the step times that lerobot-train logged.

    The mean of the logged times is multiplied by `steps`, which is also right for a run that was resumed.
    """
    curves = read_lerobot_log(log)
    times = [update + load for update, load in zip(curves["updt_s"].values, curves["data_s"].values, strict=True)]
    return steps * sum(times) / len(times)


def parameter_count(log: Path) -> int:
    """Return the number of parameters of the policy, from the log of lerobot-train.

    Raises:
        ValueError: If the log does not hold the number.
    """
    found = re.search(r"num_total_params=(\d+)", log.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{log} has no num_total_params; expected the log of lerobot-train")
    return int(found[1])


def figures(folder: Path) -> dict[str, Any]:
    """Return success rates and cost of one finished policy."""
    cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
    return {**success(folder / "eval" / "eval_info.json"), **cost}


def rows(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Format results as a table with a row for each policy."""
    tasks = list(dict.fromkeys(task for card in found.values() for task in card["tasks"]))
    header = ["policy", "success", "95 %", *tasks, "train s", "steps", "parameters"]
    return table(
        header,
        [
            [
                name,
                f"{card['success_rate']:.0%}",
                f"{card['interval'][0]:.0%}–{card['interval'][1]:.0%}",
                *(f"{card['tasks'][task]:.0%}" for task in tasks),
                f"{card['train_seconds']:.0f}",
                str(card["steps"]),
                f"{card['parameters']:,}",
            ]
            for name, card in found.items()
        ],
    )
