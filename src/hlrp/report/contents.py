"""What a report holds, checked before anything is drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SECTIONS: dict[str, tuple[str, ...]] = {
    "stages": (),
    "laq": (
        "probe_r2",
        "probe_r2_vectors",
        "probe_r2_frame_only",
        "probe_r2_pixels",
        "probe_r2_pixels_and_codes",
        "probe_gain",
        "copy_gain",
        "perplexity",
        "dead_codes",
        "code_usage",
    ),
    "foundation": ("decoded_accuracy", "accuracy", "exact_sequence_accuracy", "marginal_accuracy"),
    "versions": (),
    "commands": (),
}
_FIGURES = ("seconds_total", "peak_memory_gib", "seed")
_POLICY = ("success_rate", "episodes", "interval", "tasks", "task_episodes", "train_seconds")


def require_complete(report: Mapping[str, Any]) -> None:
    """Raise unless `report` has every figure that the page and the summary show.

    Raises:
        ValueError: Naming all that is missing, such as `laq.probe_r2`.
    """
    missing = [name for name in (*_FIGURES, *_SECTIONS, "policies") if name not in report]
    for section, names in _SECTIONS.items():
        missing += [f"{section}.{name}" for name in names if name not in report.get(section, dict.fromkeys(names))]
    for policy, card in report.get("policies", {}).items():
        missing += [f"policies.{policy}.{name}" for name in _POLICY if name not in card]
    if missing:
        raise ValueError(f"the report lacks {', '.join(missing)}; run the stages that measure them")
    if not report["policies"]:
        raise ValueError("the report has no policy; evaluate at least one")
