"""Report of a latent action quantizer as a single HTML file with embedded images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from hlrp.data.recordings import MeasuredEpisodes
from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.baselines import BaselineRow
from hlrp.measure.laq_quality import LAQQuality, QualityClips
from hlrp.report.latent_table import BASELINE_HEADER, baseline_cells, basis_of_r2
from hlrp.report.pages.latent_gallery import latent_gallery
from hlrp.report.pages.parts import concluded, facts, figure, judged, page, paragraph, section, table
from hlrp.report.verdicts.latent import latent_conclusion, latent_verdicts
from hlrp.runtime.tables import with_noun

METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"

_TITLE = "What the latent actions mean"

_OVERLAY = "Grey: unchanged; orange: became brighter; blue: became darker."
_SECTIONS = {
    "probes": (
        "Actions in the latents",
        "R² of a linear map to each action dimension. Good codes reach nearly the R² of the unquantized vectors, and "
        "far more than the codes of a still clip.",
    ),
    "predictions": (
        "Predicted frames",
        "The prediction is decoded from frame t and the codes. In the error maps, brighter is a larger error; both "
        "maps of a row share one scale.",
    ),
    "gains": (
        "Effect of the codes on the prediction",
        "Gain over copying frame t: with the clip's own codes, and with the codes of another clip (permuted codes). If "
        "the decoder uses the codes, the gain with permuted codes is small.",
    ),
    "transfer": (
        "Codes applied to other frames",
        "Each row applies the codes of the clip at its left to frames of other episodes. If the codes have one meaning "
        f"everywhere, all images of a row show the same motion. {_OVERLAY}",
    ),
    "checks": (
        "Still clips and reversed clips",
        "Left: the true motion; the prediction from frame t and the codes of a still clip, where nothing should "
        "change; the predicted change, four times brighter. Right: the true motion of the reversed clip, and the "
        f"prediction from the later frame and the codes of the reversed clip. {_OVERLAY}",
    ),
    "code_usage": ("Use of the codes", "Share of clips with each code, for each slot."),
}
_ATLAS_ACTIONS = (
    "the actions of its clips (dots) and their mean (arrow), in standard deviations along the two action dimensions "
    "that the codes predict best (their numbers stand at the axes), "
)
_ATLAS = (
    "Every column is one code. From top to bottom: the share of clips with this code, {actions}the mean change of "
    f"brightness (red brighter, blue darker), and example clips. {_OVERLAY}"
)
_RANKING = (
    "Of these metrics, the relative R² of codes and the probe R² of codes agree best with the success of policies on "
    "the codes. The gain over the frame agrees less; the metrics on still, backwards and transferred clips do not "
    "clearly agree. docs/benchmarks.md describes how this was measured (ranking)."
)


def latent_report(
    model: LatentActionQuantizer,
    clips: QualityClips,
    quality: LAQQuality,
    about: Mapping[str, str],
    baselines: Sequence[BaselineRow],
    *,
    episodes: MeasuredEpisodes,
) -> dict[str, str]:
    """Write the report of a quantizer, as text files by name: the metrics as JSON, and the page.

    Args:
        model: The quantizer.
        clips: Held-out clips on which it was measured.
        quality: Its metrics on `clips`.
        about: Rows of the table that says what was measured on what: text by name.
        baselines: Metrics of baselines with codes of the same size, after those of the quantizer; empty for none.
        episodes: Episodes of the clips, and their relation to the training of the quantizer.
    """
    values = {
        "quality": quality.to_dict(),
        "verdict": latent_conclusion(quality.to_dict()).to_dict(),
        "episodes": episodes.to_dict(),
        "baselines": [row.to_dict() for row in baselines],
        "about": about,
    }
    gallery = latent_gallery(model, clips, quality)
    html = render_latent_page(quality, gallery, about, baselines, episodes=episodes.sentence)
    return {METRICS_FILE: json.dumps(values, indent=2) + "\n", PAGE_FILE: html}


def render_latent_page(
    quality: LAQQuality,
    plots: Mapping[str, bytes],
    about: Mapping[str, str],
    baselines: Sequence[BaselineRow] = (),
    *,
    episodes: str,
) -> str:
    """Render the report of a quantizer as HTML.

    Args:
        quality: Metrics of the quantizer.
        plots: Plots from `latent_gallery`, PNG files by name.
        about: Rows of the table that says what was measured on what: text by name.
        baselines: Metrics of baselines with codes of the same size; the first row is the quantizer itself.
        episodes: Sentence that says which episodes were measured and whether the quantizer was trained on them.

    Returns:
        A complete HTML page.
    """
    values = quality.to_dict()
    ranking = [] if quality.probe.probe_r2 is None else [paragraph(_RANKING)]
    body = [
        f"<header><h1>{_TITLE}</h1>{facts(_facts(quality))}{concluded(latent_conclusion(values))}</header>\n",
        section("Verdicts", paragraph(_basis(quality, episodes)), judged(latent_verdicts(values)), *ranking),
    ]
    if baselines:
        rows = [[_with_meaning(row), *map(escape, baseline_cells(row)[1:])] for row in baselines]
        body.append(section("Comparison with other codes of the same size", table(BASELINE_HEADER, rows)))
    for name, (title, caption) in _SECTIONS.items():
        if name in plots:
            body.append(section(title, figure(caption, plots[name])))
    atlas = {name.removeprefix("atlas: "): content for name, content in plots.items() if name.startswith("atlas: ")}
    explained = _ATLAS.format(actions="" if quality.probe.probe_r2_quantized is None else _ATLAS_ACTIONS)
    body.append(
        section("Code atlas", paragraph(explained), *(figure(name, content) for name, content in atlas.items()))
    )
    body.append(section("What was measured", table(["", ""], [[escape(k), escape(v)] for k, v in about.items()])))
    return page(_TITLE, "".join(body))


def _facts(quality: LAQQuality) -> list[tuple[str, str]]:
    r2 = quality.probe.probe_r2 if quality.codes.perplexity is not None else quality.probe.probe_r2_quantized
    tiles: list[tuple[str, str]] = []
    if r2 is not None:
        tiles.append((f"{r2:.2f}", "R² from latents to actions; 1 is perfect"))
    if quality.pictures.copy_gain is not None:
        tiles.append((f"{quality.pictures.copy_gain:.2f}", "gain over copying frame t; 1 is a perfect prediction"))
    if quality.codes.tuple_entropy_bits is not None and quality.codes.tuple_entropy_bits_max is not None:
        bits = f"{quality.codes.tuple_entropy_bits:.1f} bits"
        tiles.append((bits, f"entropy of a clip's codes, of at most {quality.codes.tuple_entropy_bits_max:.1f}"))
    return tiles


def _basis(quality: LAQQuality, episodes: str) -> str:
    clips = f"{quality.clips} clips of {with_noun(quality.episodes, 'episode')}"
    pictures = (
        ""
        if quality.pictures.copy_gain is None
        else f"; metrics of predicted frames use {quality.picture_clips} of them"
    )
    intervals = (
        "" if quality.probe.probe_gain_interval is None else "Intervals are 95 % bootstrap intervals over episodes."
    )
    sentences = (f"{episodes[:1].upper()}{episodes[1:]}. {clips}{pictures}.", basis_of_r2(quality.probe), intervals)
    return " ".join(sentence for sentence in sentences if sentence)


def _with_meaning(row: BaselineRow) -> str:
    return f"<b>{escape(row.name)}</b><br><small>{escape(row.meaning)}</small>"
