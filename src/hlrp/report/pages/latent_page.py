"""The report of one quantizer as one page that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from hlrp.measure.baselines import BaselineRow
from hlrp.measure.laq_quality import LAQQuality
from hlrp.report.latent_table import BASELINE_HEADER, baseline_cells
from hlrp.report.pages.parts import concluded, facts, figure, judged, page, paragraph, section, table
from hlrp.report.verdicts import latent_conclusion, latent_verdicts
from hlrp.runtime.tables import counted

_TITLE = "What the latent actions mean"

_OVERLAY = "Grey: unchanged; orange: became brighter; blue: became darker."
_SECTIONS = {
    "probes": (
        "Actions in the latents",
        "R² of a linear map to each action dimension. Good codes stand close to the unquantized vectors, and far above "
        "those of a still clip.",
    ),
    "predictions": (
        "Predicted frames",
        "Frame t and the codes give the prediction. Brighter is more wrong; both maps of a row share one scale.",
    ),
    "gains": (
        "Do codes matter?",
        "Gain over copying frame t with a clip's own codes, and with permuted codes, where it should be gone.",
    ),
    "transfer": (
        "The same codes elsewhere",
        "Each row applies the codes of the clip at its left to frames of other episodes. Codes mean one thing where "
        f"the same motion appears along their row. {_OVERLAY}",
    ),
    "checks": (
        "No motion, and motion backwards",
        "Left: the true motion; frame t under the codes of a still clip, where nothing should change; what changes, "
        f"four times brighter. Right: the clip backwards, and what its codes make of the later frame. {_OVERLAY}",
    ),
    "code_usage": ("Use of the codes", "Share of each code in each slot."),
}
_ATLAS_ACTIONS = (
    "the actions of its clips (dots) and their mean (arrow, along the first two action dimensions in standard "
    "deviations), "
)
_ATLAS = (
    "Every column is one code: its share of clips, {actions}the mean change of brightness (red brighter, blue darker), "
    f"and clips that have it. {_OVERLAY}"
)


def render_latent_page(
    quality: LAQQuality,
    figures: Mapping[str, bytes],
    about: Mapping[str, str],
    baselines: Sequence[BaselineRow] = (),
    *,
    episodes: str,
) -> str:
    """Render the report as HTML.

    Args:
        quality: The card.
        figures: PNG files from `latent_gallery`.
        about: What was measured on what, by name.
        baselines: Codes of the same size from elsewhere, the quantizer itself first.
        episodes: Which episodes were measured, and whether the quantizer was trained on them: a sentence.

    Returns:
        A complete page.
    """
    values = quality.to_dict()
    body = [
        f"<header><h1>{_TITLE}</h1>{facts(_facts(quality))}{concluded(latent_conclusion(values))}</header>\n",
        section("Verdicts", paragraph(_basis(quality, episodes)), judged(latent_verdicts(values))),
    ]
    if baselines:
        rows = [[_with_meaning(row), *map(escape, baseline_cells(row)[1:])] for row in baselines]
        body.append(section("Beside other codes of the same size", table(BASELINE_HEADER, rows)))
    for name, (title, caption) in _SECTIONS.items():
        if name in figures:
            body.append(section(title, figure(caption, figures[name])))
    atlas = {name.removeprefix("atlas: "): content for name, content in figures.items() if name.startswith("atlas: ")}
    explained = _ATLAS.format(actions="" if quality.probe_r2_quantized is None else _ATLAS_ACTIONS)
    body.append(
        section("Code atlas", paragraph(explained), *(figure(name, content) for name, content in atlas.items()))
    )
    body.append(section("What was measured", table(["", ""], [[escape(k), escape(v)] for k, v in about.items()])))
    return page(_TITLE, "".join(body))


def _facts(quality: LAQQuality) -> list[tuple[str, str]]:
    r2 = quality.probe_r2 if quality.perplexity is not None else quality.probe_r2_quantized
    shown: list[tuple[str, str]] = []
    if r2 is not None:
        shown.append((f"{r2:.2f}", "R² from latents to actions; 1 is all of them"))
    if quality.copy_gain is not None:
        shown.append((f"{quality.copy_gain:.2f}", "of the squared error of copying frame t saved"))
    if quality.tuple_entropy_bits is not None and quality.tuple_entropy_bits_max is not None:
        bits = f"{quality.tuple_entropy_bits:.1f} bits"
        shown.append((bits, f"in a clip's codes, of at most {quality.tuple_entropy_bits_max:.1f}"))
    return shown


def _basis(quality: LAQQuality, episodes: str) -> str:
    clips = f"{quality.clips} clips of {counted(quality.episodes, 'episode')}"
    pictures = "" if quality.copy_gain is None else f"; figures of pictures from {quality.picture_clips} of them"
    intervals = "" if quality.probe_gain_interval is None else " Intervals are 95 % bootstrap intervals over episodes."
    return f"{episodes[:1].upper()}{episodes[1:]}. {clips}{pictures}.{intervals}"


def _with_meaning(row: BaselineRow) -> str:
    return f"<b>{escape(row.name)}</b><br><small>{escape(row.meaning)}</small>"
