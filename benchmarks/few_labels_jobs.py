"""Jobs of a benchmark that depend on each other, run two at a time; a finished job is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One step of a benchmark, which writes the file or folder `output` completely or not at all."""

    name: str
    output: Path
    run: Callable[[], object]
    after: tuple[Path, ...] = ()
    """Outputs of other jobs that this one reads."""

    @property
    def is_done(self) -> bool:
        """Whether an earlier run wrote the output."""
        return self.output.exists()


def run_jobs(jobs: Sequence[Job], *, workers: int) -> list[str]:
    """Run jobs in order, each as soon as its inputs exist; a job that fails does not stop the others.

    Args:
        jobs: Jobs, the most urgent first. A job may be listed before those that it needs.
        workers: Number of jobs that run at the same time.

    Returns:
        What failed, one sentence for each job.
    """
    waiting = [job for job in jobs if not job.is_done]
    failed: list[str] = []
    running: dict[Future[object], Job] = {}
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs were done earlier", flush=True)
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            ready = [job for job in waiting if all(path.exists() for path in job.after)]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                print(f"{time.strftime('%H:%M:%S')} {job.name}", flush=True)
                running[pool.submit(job.run)] = job
            if not running:
                failed += [f"{job.name}: not run, since what it needs is missing" for job in waiting]
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                if (error := future.exception()) is not None:
                    failed.append(f"{job.name}: {error}")
                    print(f"{time.strftime('%H:%M:%S')} failed: {failed[-1]}", flush=True)
    return failed
