"""Keys that the dictionary of a demo's report must have; they are checked before the page or the summary is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SECTIONS: dict[str, tuple[str, ...]] = {
    "stages": (),
    "laq": (
        "clips",
        "probe_r2",
        "probe_r2_interval",
        "probe_r2_quantized",
        "probe_r2_vectors",
        "probe_r2_frame_only",
        "probe_r2_pixels",
        "probe_r2_pixels_and_codes",
        "probe_r2_relative",
        "probe_r2_relative_vectors",
        "probe_gain",
        "probe_gain_interval",
        "copy_gain",
        "copy_gain_moving",
        "permuted_gain_ratio",
        "still_change_ratio",
        "transfer_consistency",
        "transfer_chance",
        "transfer_r2",
        "self_consistency",
        "perplexity",
        "dead_codes",
        "code_usage",
        "tuple_entropy_bits",
        "tuple_entropy_bits_max",
        "distinct_tuples",
        "still_modal_share",
        "reversal_correlation",
        "reversal_changed_codes",
    ),
    "foundation": (
        "decoded_accuracy",
        "decoded_accuracy_interval",
        "constant_guess_accuracy",
        "constant_guess_is_of_training",
        "gain_over_guessing",
        "last_code_accuracy",
        "last_code_frames",
        "teacher_forced_accuracy",
        "exact_sequence_accuracy",
        "cross_entropy_bits",
        "label_entropy_bits",
        "calibration_error",
    ),
    "versions": (),
    "commands": (),
}
_NUMBERS = ("seconds_total", "peak_memory_gib", "seed")
_POLICY = ("success_rate", "episodes", "interval", "tasks", "task_episodes", "train_seconds")


def require_complete(report: Mapping[str, Any]) -> None:
    """Raise an error unless `report` has every metric that the page and the summary show.

    Raises:
        ValueError: If metrics are missing; the message names all of them, such as `laq.probe_r2`.
    """
    missing = [name for name in (*_NUMBERS, *_SECTIONS, "policies") if name not in report]
    for section, names in _SECTIONS.items():
        missing += [f"{section}.{name}" for name in names if name not in report.get(section, dict.fromkeys(names))]
    for policy, card in report.get("policies", {}).items():
        missing += [f"policies.{policy}.{name}" for name in _POLICY if name not in card]
    if missing:
        raise ValueError(f"the report lacks {', '.join(missing)}; run the stages that measure them")
    if not report["policies"]:
        raise ValueError("the report has no policy; evaluate at least one")
