"""Tables of the few-labels benchmark: scores of the labellers, and success rates."""

from __future__ import annotations

from typing import Any

from benchmarks.few_labels_plot import in_order
from hlrp.runtime.tables import table


def labeller_table(labellers: dict[str, Any]) -> str:
    """Table of R², and of the calibration error in brackets, by labeller and budget."""
    budgets = sorted({int(budget) for scores in labellers.values() for budget in scores})

    def cell(scores: dict[str, Any] | None) -> str:
        if scores is None:
            return ""
        error = scores.get("calibration_error")
        return f"{scores['action_r2']:.3f}" + ("" if error is None else f" ({error:.3f})")

    rows = [[name, *(cell(scores.get(str(budget))) for budget in budgets)] for name, scores in labellers.items()]
    return table(["action R² (calibration error)", *(f"{budget} labelled" for budget in budgets)], rows)


def success_table(results: dict[str, Any]) -> str:
    """Table of success rates with their intervals, by method and budget."""
    cells = results["cells"]
    budgets = in_order({budget for found in cells.values() for budget in found})
    rows = []
    for name, found in cells.items():
        shown = [found.get(budget) for budget in budgets]
        rows.append(
            [
                name,
                *(
                    f"{one['success']:.0%} ({one['interval'][0]:.0%}–{one['interval'][1]:.0%}; {len(one['seeds'])})"
                    if one
                    else ""
                    for one in shown
                ),
            ]
        )
    return table(["success (95 %; seeds)", *(f"{budget} labelled" for budget in budgets)], rows)
