"""What each figure of a run means, and whether it is good enough to build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Thresholds of a quantizer that is good enough to build on: conventions, wide enough that noise does not decide.
GOOD_PROBE_R2 = 0.5
"""Codes from which a linear map reads at least half of the actions' variance."""
GOOD_PERPLEXITY_SHARE = 0.5
"""Share of the codebook that each slot's perplexity must reach."""
GOOD_PERMUTED_RATIO = 0.5
"""Share of the gain over copying that may survive foreign codes: most of it must come from a clip's own codes."""
GOOD_TRANSFER = 0.5
"""Agreement of transferred codes above chance, over the best that is above chance: Cohen's kappa (1960)."""
GOOD_STILL_SHARE = 0.8
"""Share of still clips with one and the same code tuple."""
GOOD_STILL_CHANGE = 0.1
"""Squared change that may be predicted where nothing moves, over the change in real clips."""
GOOD_REVERSAL = 0.5
"""Correlation of what is read from a clip played backwards with the opposite of what is read from it forwards."""


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
    """Judge the figures of `hlrp.laq.quality.LAQQuality`; the first one ranks quantizers.

    Figures that were not measured are left out: those of codes for a continuous latent, of pictures for a model that
    predicts none, of actions where there are none. Only the first is always there.
    """
    rows = (*_probe_rows(laq), *_picture_rows(laq), *_code_rows(laq), *_motion_rows(laq))
    return [row for row in rows if row is not None]


def _probe_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    continuous = laq["perplexity"] is None
    ranking = laq["probe_r2_quantized" if continuous else "probe_r2"]
    interval, gain, gain_interval = laq["probe_r2_interval"], laq["probe_gain"], laq["probe_gain_interval"]
    first = Verdict(
        "probe R² of vectors" if continuous else "probe R² of codes",
        "no varying action" if ranking is None else _with_interval(ranking, interval),
        "how much of the coming actions a linear map reads from them, on unseen episodes; 1 is all",
        f"≥ {GOOD_PROBE_R2:g}",
        None if ranking is None else ranking >= GOOD_PROBE_R2,
    )
    if ranking is None:
        return [first]
    lowest_gain = gain if gain_interval is None else gain_interval[0]
    return [
        first,
        None if continuous else _shown(
            "probe R² of code vectors", laq["probe_r2_quantized"], "the same from the vectors that the decoder reads",
        ),
        None if continuous else _shown(
            "probe R² before quantization", laq["probe_r2_vectors"],
            "the same from the encoder's vectors: what rounding to codes costs",
        ),
        _shown(
            "probe R² of a still clip", laq["probe_r2_frame_only"],
            "the same from frame t repeated: what latents hold without any motion",
        ),
        _shown("probe R² of pixels", laq["probe_r2_pixels"], "the same from frame t itself: what needs no latent"),
        _shown("probe R² of pixels and codes", laq["probe_r2_pixels_and_codes"], "both together"),
        Verdict(
            "gain over the frame", _with_interval(gain, gain_interval),
            "what latents add to all that frame t gives; its whole 95 % interval must be positive",
            "> 0", lowest_gain > 0,
        ),
    ]  # fmt: skip


def _picture_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    ratio, change = laq["permuted_gain_ratio"], laq["still_change_ratio"]
    agreement, chance = laq["transfer_consistency"], laq["transfer_chance"]
    rows: list[Verdict | None] = [
        _above_zero(
            "gain over copying", laq["copy_gain"],
            "how much closer the predicted frame is than frame t repeated; 1 is perfect",
        ),
        _above_zero("gain on moving pixels", laq["copy_gain_moving"], "the same where something moves"),
        _at_most(
            "gain kept under foreign codes", ratio, GOOD_PERMUTED_RATIO,
            "share of that gain left when clips swap their codes; 1 is a decoder that ignores them",
        ),
        _at_most(
            "change seen in still clips", change, GOOD_STILL_CHANGE,
            "squared change predicted where nothing moves, over that of real clips",
        ),
    ]  # fmt: skip
    if agreement is not None:
        wanted = chance + GOOD_TRANSFER * (1 - chance)
        rows.append(
            Verdict(
                "transferred codes", f"{agreement:.3f}",
                f"share of codes read back after they moved the frame of another episode; {chance:.2f} is chance, "
                f"{laq['self_consistency']:.2f} their own frame",
                f"≥ {wanted:.2f}", agreement >= wanted,
            )
        )  # fmt: skip
    rows.append(_shown("transferred vectors, R²", laq["transfer_r2"], "the same for code vectors; 1 is identical"))
    return rows


def _code_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    if laq["perplexity"] is None:
        return []
    size = len(laq["code_usage"][0])
    dead_slots = sum(dead == size - 1 for dead in laq["dead_codes"])
    return [
        Verdict(
            "perplexity per slot", " ".join(f"{slot:.1f}" for slot in laq["perplexity"]),
            f"how many of the {size} codes each slot really uses",
            f"every slot ≥ {GOOD_PERPLEXITY_SHARE * size:g}", min(laq["perplexity"]) >= GOOD_PERPLEXITY_SHARE * size,
        ),
        Verdict(
            "dead slots", f"{dead_slots} of {len(laq['dead_codes'])}",
            "slots that say the same code whatever happens", "0", dead_slots == 0,
        ),
        Verdict(
            "dead codes per slot", " ".join(str(dead) for dead in laq["dead_codes"]),
            "codes that no unseen clip uses", "", None,
        ),
        Verdict(
            "entropy of code tuples", f"{laq['tuple_entropy_bits']:.1f} of {laq['tuple_entropy_bits_max']:.1f} bits",
            f"what all slots say together (Miller–Madow estimate); {laq['distinct_tuples']} different tuples in "
            f"{laq['clips']} clips", "", None,
        ),
    ]  # fmt: skip


def _motion_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    return [
        _at_least(
            "still clips with one name", laq["still_modal_share"], GOOD_STILL_SHARE,
            "share of clips without motion that get the most frequent of their code tuples",
        ),
        _at_least(
            "backwards means opposite", laq["reversal_correlation"], GOOD_REVERSAL,
            "correlation of actions read from clips played backwards with the negated ones of the clips themselves; "
            "for actions that are displacements",
        ),
        _shown(
            "codes that change backwards", laq["reversal_changed_codes"],
            "share of codes that tell the direction of time",
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


def _shown(name: str, value: float | None, meaning: str) -> Verdict | None:
    """A figure for comparison."""
    return None if value is None else Verdict(name, f"{value:.3f}", meaning, "", None)


def _at_least(name: str, value: float | None, threshold: float, meaning: str) -> Verdict | None:
    return None if value is None else Verdict(name, f"{value:.3f}", meaning, f"≥ {threshold:g}", value >= threshold)


def _at_most(name: str, value: float | None, threshold: float, meaning: str) -> Verdict | None:
    return None if value is None else Verdict(name, f"{value:.3f}", meaning, f"≤ {threshold:g}", value <= threshold)


def _above_zero(name: str, value: float | None, meaning: str) -> Verdict | None:
    return None if value is None else Verdict(name, f"{value:.3f}", meaning, "> 0", value > 0)


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.2f} … {interval[1]:.2f})"
