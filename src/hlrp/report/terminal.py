"""Summary of a demo run for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hlrp.measure.success_rate import task_successes
from hlrp.report.durations import duration
from hlrp.report.latent_table import judged_table
from hlrp.report.pages.contents import require_complete
from hlrp.report.verdicts.foundation import foundation_conclusion, foundation_verdicts
from hlrp.report.verdicts.latent import latent_conclusion, latent_verdicts
from hlrp.runtime.tables import table


def summary(report: Mapping[str, Any]) -> str:
    """Return tables of success per task, quality of the latent actions and of the foundation model, and time per stage.

    Args:
        report: Metrics of the run, with the keys of `hlrp.report.pages.contents`.

    Raises:
        ValueError: If a metric is missing, or a success rate is no fraction of its episodes.
    """
    require_complete(report)
    tables = (
        _success(report["policies"]),
        judged_table("latent actions", latent_verdicts(report["laq"]), latent_conclusion(report["laq"])),
        judged_table(
            "foundation model", foundation_verdicts(report["foundation"]), foundation_conclusion(report["foundation"])
        ),
        _times(report),
    )
    return "\n\n".join(tables)


def _success(policies: Mapping[str, Any]) -> str:
    successes = task_successes(policies)
    tasks = dict.fromkeys(task for by_task in successes.values() for task in by_task)
    rows = [
        [task, *(_rate(*by_task[task]) if task in by_task else "–" for by_task in successes.values())] for task in tasks
    ]
    rows.append(["all", *(_rate(card["success_rate"], *card["interval"]) for card in policies.values())])
    rows.append(["episodes", *(str(card["episodes"]) for card in policies.values())])
    rows.append(["training", *(duration(card["train_seconds"]) for card in policies.values())])
    return table(["success (95 % interval)", *policies], rows)


def _rate(rate: float, low: float, high: float) -> str:
    return f"{rate:4.0%}  ({low:.0%} … {high:.0%})"


def _times(report: Mapping[str, Any]) -> str:
    total = report["seconds_total"]
    rows = [[name, duration(seconds), f"{seconds / total:4.0%}"] for name, seconds in report["stages"].items()]
    rows.append(["in all", duration(total), ""])
    rows.append(["peak memory", f"{report['peak_memory_gib']:.1f} GiB", ""])
    return table(["stage", "time", "share"], rows)
