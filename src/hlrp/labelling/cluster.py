"""Label shards on several machines, or in several processes of one, through datatrove.

A task labels a group of shards. On Slurm, a last task, which starts when all others have succeeded, merges the shards;
otherwise the command waits for the tasks and merges the shards itself. All processes need the same file system.
datatrove is imported only here, when it is used.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hlrp.labelling.config import ClusterConfig
from hlrp.labelling.engine import label_shards, publish
from hlrp.labelling.job import OpenJob
from hlrp.labelling.work_folder import WorkFolder
from hlrp.runtime.event_log import appended_log
from hlrp.runtime.extras import require_packages
from hlrp.storage.files import sole_writer


@dataclass(frozen=True)
class LabelTask:
    """Label every `world_size`-th shard from shard `rank` on. Neighbouring shards take about equally long, so that all
    tasks do."""

    open_job: OpenJob
    target: Path
    threads: int | None
    """Threads of torch; None for all cores that the task has."""
    log: Path | None = None
    """Log of events of the command, to add to; None for none."""

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Label the shards of task `rank`."""
        if self.threads is not None:
            torch.set_num_threads(min(self.threads, torch.get_num_threads()))
        work = WorkFolder(self.target)
        with appended_log(self.log, task=rank):
            job = self.open_job(work.metadata())
            label_shards(job, work, job.shards()[rank::world_size], show_progress=False)


@dataclass(frozen=True)
class MergeTask:
    """Merge the shards of all tasks, after the command that submitted the tasks has ended."""

    open_job: OpenJob
    target: Path
    as_dataset: bool
    overwrite: bool

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Write the labels, and remove the shards."""
        work = WorkFolder(self.target)
        job = self.open_job(work.metadata())
        with sole_writer(self.target):
            print(publish(job, work, self.target, as_dataset=self.as_dataset, overwrite=self.overwrite).report())


def run_tasks(config: ClusterConfig, label: LabelTask, *, num_shards: int) -> None:
    """Label with `config.executor`, local or ray, and wait until all tasks have ended.

    A task that fails on Ray raises no error here; `publish` finds that its shards are missing.

    Raises:
        MissingPackage: If datatrove or Ray is not installed.
    """
    _label_executor(config, label, num_shards).run()


def submit_tasks(config: ClusterConfig, label: LabelTask, merge: MergeTask, *, num_shards: int) -> None:
    """Submit the tasks to Slurm, and a last one that merges.

    Raises:
        MissingPackage: If datatrove is not installed.
    """
    first = _label_executor(config, label, num_shards)
    logs = WorkFolder(merge.target).logs / "merge"
    _executors()[config.executor](config)(pipeline=[merge], tasks=1, logging_dir=str(logs), depends=first).run()


def _label_executor(config: ClusterConfig, label: LabelTask, num_shards: int) -> Any:
    require_packages("datatrove", *(["ray"] if config.executor == "ray" else []), needed_for="executor")
    tasks = min(config.tasks or num_shards, num_shards)
    logs = WorkFolder(label.target).logs / "label"
    return _executors()[config.executor](config)(pipeline=[label], tasks=tasks, logging_dir=str(logs))


def _executors() -> dict[str, Callable[[ClusterConfig], Callable[..., Any]]]:
    return {"local": _local, "slurm": _slurm, "ray": _ray}


def _local(config: ClusterConfig) -> Callable[..., Any]:
    from datatrove.executor import LocalPipelineExecutor

    def make(*, tasks: int, **settings: Any) -> Any:
        # Shards that are finished are recognized by their files, and tasks may be other ones in a second run.
        workers = min(local_workers(config), tasks)
        return LocalPipelineExecutor(tasks=tasks, workers=workers, skip_completed=False, **settings)

    return make


def local_workers(config: ClusterConfig) -> int:
    """Processes of the local executor: by default one for each core of this machine."""
    return config.workers or os.cpu_count() or 1


def _slurm(config: ClusterConfig) -> Callable[..., Any]:
    from datatrove.executor import SlurmPipelineExecutor

    wanted = config.resources

    def make(**settings: Any) -> Any:
        return SlurmPipelineExecutor(
            job_name="hlrp-labels",
            workers=config.workers or -1,
            time=wanted.time,
            partition=wanted.partition,
            qos=wanted.qos,
            cpus_per_task=wanted.cpus_per_task,
            gpus_per_task=wanted.gpus_per_task,
            mem_per_cpu_gb=wanted.mem_per_cpu_gb,
            env_command=wanted.env_command or _this_environment(),
            # Without this, the merge of tasks that failed would wait in the queue for ever.
            sbatch_args={"kill-on-invalid-dep": "yes", **wanted.sbatch_args},
            skip_completed=False,
            **settings,
        )

    return make


def _this_environment() -> str:
    """Shell command after which a task finds the programs of the Python environment that submits it."""
    return f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"


def _ray(config: ClusterConfig) -> Callable[..., Any]:
    from datatrove.executor import RayPipelineExecutor

    wanted = config.resources

    def make(**settings: Any) -> Any:
        return RayPipelineExecutor(
            workers=config.workers or -1,
            cpus_per_task=wanted.cpus_per_task,
            gpus_per_task=wanted.gpus_per_task,
            mem_per_cpu_gb=wanted.mem_per_cpu_gb,
            skip_completed=False,
            **settings,
        )

    return make
