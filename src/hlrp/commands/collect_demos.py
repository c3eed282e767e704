"""`hlrp-collect-demos`: record demonstrations of Meta-World's scripted experts."""

from __future__ import annotations

import time

from hlrp.options.collect_demos import CollectDemosConfig
from hlrp.sim.demonstrations import record_demonstrations


def collect_demos(config: CollectDemosConfig) -> None:
    """Record the demonstrations and print, for each task, how many episodes were kept and dropped.

    Raises:
        FileExistsError: If `config.output_dir` exists.
        ValueError: If a task is unknown, or the scripted expert of a task fails too often.
    """
    start = time.perf_counter()
    counts = record_demonstrations(
        config.demonstrations(), config.output_dir, repo_id=config.repo_id, num_workers=config.num_workers
    )
    elapsed_s = time.perf_counter() - start

    print(f"{'task':<32}{'kept':>6}{'dropped':>9}{'mean length':>13}")
    for count in counts:
        print(f"{count.task:<32}{count.kept:>6}{count.dropped:>9}{count.frames / count.kept:>13.1f}")
    frames = sum(count.frames for count in counts)
    print(f"{frames} frames in {elapsed_s:.1f} s ({frames / elapsed_s:.0f} frames/s): {config.output_dir}")
