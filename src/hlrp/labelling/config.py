"""Options of labelling on several machines. The module imports no torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from hlrp.runtime.checks import changed_options, require_numbers

Executor = Literal["none", "local", "slurm", "ray"]
"""Where shards are labelled."""
_ONLY_SLURM = ("time", "partition", "qos", "env_command", "sbatch_args")
"""Resources that the executor ray does not read."""


@dataclass(kw_only=True)
class TaskResources:
    """Resources of one task on a Slurm or Ray cluster."""

    cpus_per_task: int = 2
    """CPU cores of a task: one decodes, the others run the model."""
    gpus_per_task: int = 0
    """GPUs of a task."""
    mem_per_cpu_gb: int = 2
    """Memory for each core, in GB."""
    time: str = "24:00:00"
    """Slurm: time limit of a task."""
    partition: str = ""
    """Slurm: partition. Required for slurm."""
    qos: str = ""
    """Slurm: quality of service; default: the cluster's."""
    env_command: str = ""
    """Slurm: shell command before a task, such as `source /path/to/.venv/bin/activate`; default: put the programs of
    the Python environment that submits the tasks first in PATH."""
    sbatch_args: dict[str, str] = field(default_factory=dict)
    """Slurm: further options of sbatch, such as {account: robots}."""

    def __post_init__(self) -> None:
        require_numbers(self, "cpus_per_task", "mem_per_cpu_gb", at_least=1)
        require_numbers(self, "gpus_per_task", at_least=0)


@dataclass(kw_only=True)
class ClusterConfig:
    """Where shards are labelled, and in how many tasks."""

    executor: Executor = "none"
    tasks: int | None = None
    """Tasks among which shards are divided; None: one per shard."""
    workers: int | None = None
    """Tasks at the same time; None: one per core of this machine, or all on a cluster."""
    resources: TaskResources = field(default_factory=TaskResources)

    def __post_init__(self) -> None:
        require_numbers(self, "tasks", "workers", at_least=1)
        if self.executor == "none" and (self.tasks is not None or self.workers is not None):
            raise ValueError("tasks and workers go with an executor; set executor to local, slurm or ray")
        self._require_effect_of_resources()
        if self.executor == "slurm" and not self.resources.partition:
            raise ValueError("resources.partition is empty; name the Slurm partition of the tasks")

    def _require_effect_of_resources(self) -> None:
        """Raise if a resource was given that the executor does not read."""
        readers = ("slurm", "ray")
        for resource in fields(self.resources):
            able = readers[:1] if resource.name in _ONLY_SLURM else readers
            if self.executor not in able and changed_options(self.resources, resource.name):
                raise ValueError(
                    f"resources.{resource.name} has no effect with executor={self.executor}; leave it out, or set "
                    f"executor to {' or '.join(able)}"
                )
