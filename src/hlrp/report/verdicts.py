"""What each figure of a run means, and whether it is good enough to build on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GOOD_PROBE_R2 = 0.5
"""Codes from which a linear map reads at least half of the actions' variance."""
GOOD_PERPLEXITY_SHARE = 0.5
"""Share of the codebook that each slot's perplexity must reach."""


@dataclass(frozen=True)
class Verdict:
    """One figure, explained and judged."""

    name: str
    value: str
    meaning: str
    wanted: str
    """The threshold in words; empty for a figure that is shown for comparison."""
    good: bool | None
    """None where there is no threshold, or nothing was measured."""

    @property
    def word(self) -> str:
        """`good`, `weak`, or a dash."""
        return "–" if self.good is None else ("good" if self.good else "weak")


def latent_verdicts(laq: Mapping[str, Any]) -> list[Verdict]:
    """Judge the figures of `hlrp.laq.quality.LAQQuality`; the first one ranks quantizers."""
    size = len(laq["code_usage"][0])
    lowest = min(laq["perplexity"])
    dead_slots = sum(dead == size - 1 for dead in laq["dead_codes"])
    return [
        _at_least(
            "probe R² of codes", laq["probe_r2"], GOOD_PROBE_R2,
            "how much of the coming actions a linear map reads from the codes, on unseen episodes; 1 is all",
        ),
        _r2(
            "probe R² of vectors", laq["probe_r2_vectors"],
            "the same before quantization: what rounding to codes costs",
        ),
        _r2(
            "probe R² of a still clip", laq["probe_r2_frame_only"],
            "the same from the codes of frame t repeated: what they hold without any motion",
        ),
        _r2(
            "probe R² of pixels", laq["probe_r2_pixels"],
            "the same from frame t itself: what needs no latent action",
        ),
        _r2("probe R² of pixels and codes", laq["probe_r2_pixels_and_codes"], "both together"),
        _above_zero("gain over the frame", laq["probe_gain"], "what the codes add to all that frame t gives"),
        _above_zero(
            "gain over copying", laq["copy_gain"],
            "how much closer the predicted frame is than frame t repeated; 1 is perfect",
        ),
        Verdict(
            "perplexity per slot", " ".join(f"{slot:.1f}" for slot in laq["perplexity"]),
            f"how many of the {size} codes each slot really uses",
            f"every slot ≥ {GOOD_PERPLEXITY_SHARE * size:g}", lowest >= GOOD_PERPLEXITY_SHARE * size,
        ),
        Verdict(
            "dead slots", f"{dead_slots} of {len(laq['dead_codes'])}",
            "slots that say the same code whatever happens", "0", dead_slots == 0,
        ),
        Verdict(
            "dead codes per slot", " ".join(str(dead) for dead in laq["dead_codes"]),
            "codes that no unseen clip uses", "", None,
        ),
    ]  # fmt: skip


def foundation_verdicts(foundation: Mapping[str, Any]) -> list[Verdict]:
    """Judge the figures of the foundation model's last validation."""
    guess = foundation["marginal_accuracy"]
    return [
        Verdict(
            "decoded accuracy", f"{foundation['decoded_accuracy']:.3f}",
            "share of codes right when decoded from one frame and the instruction, on unseen episodes",
            "> best constant guess", foundation["decoded_accuracy"] > guess,
        ),
        Verdict("best constant guess", f"{guess:.3f}", "saying each slot's most frequent code", "", None),
        Verdict(
            "teacher-forced accuracy", f"{foundation['accuracy']:.3f}",
            "share of codes right when the codes before are given", "", None,
        ),
        Verdict(
            "exact sequences", f"{foundation['exact_sequence_accuracy']:.3f}",
            "share of frames whose codes are all right", "", None,
        ),
    ]  # fmt: skip


def _r2(name: str, value: float | None, meaning: str) -> Verdict:
    return Verdict(name, _number(value), meaning, "", None)


def _at_least(name: str, value: float | None, threshold: float, meaning: str) -> Verdict:
    return Verdict(name, _number(value), meaning, f"≥ {threshold:g}", None if value is None else value >= threshold)


def _above_zero(name: str, value: float | None, meaning: str) -> Verdict:
    return Verdict(name, _number(value), meaning, "> 0", None if value is None else value > 0)


def _number(value: float | None) -> str:
    return "no varying action" if value is None else f"{value:.3f}"
