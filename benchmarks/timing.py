"""Time several calls fairly on a machine that also does other work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, device: str, warmup: int = 2
) -> dict[str, float]:
    """Return the median seconds of each call; calls take turns, so that other work on the machine slows all alike.

    Args:
        calls: Calls by name.
        repeats: Measured rounds, in each of which every call is made once.
        device: Device of the calls; on a GPU, the time until the device is done is measured.
        warmup: Rounds before the measured ones, in which memory is allocated and kernels are chosen.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(warmup + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
