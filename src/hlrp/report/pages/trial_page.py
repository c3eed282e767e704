"""Page about a short trial of a policy as a single HTML file: its episodes, and the latent actions in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hlrp.report.durations import duration
from hlrp.report.pages.parts import facts, figure, page, paragraph, section, table, video_tiles
from hlrp.report.verdicts.foundation import foundation_conclusion
from hlrp.report.verdicts.latent import latent_conclusion

_TITLE = "HLRP: a policy that plans in latent actions"

_FILMS = "The first episode of every task, from its first to its last frame."
_IMAGINED = (
    "From frame t and the instruction, the policy predicts the codes of a latent action. The quantizer's decoder draws "
    "the frame to which they should lead, {span:g} s later; the policy itself does not need it. Beside it: what the "
    "camera saw at that time. In the maps of changes, orange became brighter, and blue darker. Every row is the moment "
    "with the most motion in the first episode of a task."
)
_ATLAS = (
    "The quantizer labels all clips of these episodes. Every column is one code tuple or one code of a slot. From top "
    "to bottom: its share of the clips, the mean change of brightness (red brighter, blue darker), and example clips: "
    "grey is unchanged, orange became brighter, and blue darker."
)
_TRANSFER = (
    "Every row takes the codes of the clip at its left, and applies them to frames of other episodes. If a code has "
    "one meaning everywhere, all images of a row show the same motion."
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the page shows."""

    success: Mapping[str, Any]
    """Success rates, as `hlrp.demo.evaluation_files.success` returns them."""
    laq: Mapping[str, Any]
    """Metrics on the card of the LAQ."""
    foundation: Mapping[str, Any]
    """Metrics on the card of the foundation model."""
    rollouts: Mapping[str, Any]
    """Metrics of the LAQ on the episodes of the trial."""
    plots: Mapping[str, bytes]
    """PNG files by name: `films`, `imagined`, and those of `latent_gallery`; what is missing is left out."""
    videos: Mapping[str, Path]
    """One video for each task."""
    span_s: float
    """Time that a latent action spans, in seconds."""
    seconds: float
    """Duration of the trial."""
    first_seed: int
    """Seed of the first episode."""


def render_trial(trial: Trial) -> str:
    """Render the page as HTML.

    Raises:
        FileNotFoundError: If a video does not exist.
    """
    plots = trial.plots
    atlas = [figure(name.removeprefix("atlas: "), plots[name]) for name in plots if name.startswith("atlas: ")]
    imagined = _IMAGINED.format(span=trial.span_s)
    body = (
        _header(trial),
        section("Success", _success(trial)),
        section("Episodes", video_tiles(trial.videos), figure(_FILMS, plots["films"])),
        section("What the policy imagines", figure(imagined, plots["imagined"])) if "imagined" in plots else "",
        section("What each code does", paragraph(_ATLAS), *atlas),
        section("Codes applied to other frames", figure(_TRANSFER, plots["transfer"])) if "transfer" in plots else "",
        section("The models", _models(trial)),
    )
    return page(_TITLE, "".join(body))


def _header(trial: Trial) -> str:
    found = trial.success
    solved = round(found["success_rate"] * found["episodes"])
    tiles = [
        (f"{solved} of {found['episodes']}", "episodes solved in simulation"),
        (duration(trial.seconds), "for simulation and pictures, without a GPU or a network"),
    ]
    if (gain := trial.rollouts["copy_gain_moving"]) is not None:
        tiles.append(
            (
                f"{gain:.2f}",
                "gain on moving pixels: 0 is frame t repeated, 1 a perfect prediction from frame t and codes",
            )
        )
    return f"<header><h1>{_TITLE}</h1>{facts(tiles)}</header>\n"


def _success(trial: Trial) -> str:
    found = trial.success
    rows = []
    for task, rate in found["tasks"].items():
        episodes = found["task_episodes"][task]
        rows.append([escape(task), f"{round(rate * episodes)} of {episodes}"])
    low, high = found["interval"]
    rows.append(["<b>all</b>", f"<b>{found['success_rate']:.0%}</b> <small>{low:.0%} … {high:.0%}</small>"])
    seeds = f"Seeds {trial.first_seed} and later; the interval is a 95 % Wilson interval."
    return table(["task", "episodes solved"], rows) + paragraph(seeds)


def _models(trial: Trial) -> str:
    rows = [
        ["quantizer (LAQ)", escape(latent_conclusion(trial.laq).reason)],
        ["foundation model", escape(foundation_conclusion(trial.foundation).reason)],
    ]
    cards = "From their cards, measured on held-out demonstrations; the cards are in the folders of the models."
    return table(["model", "what was measured"], rows) + paragraph(cards)
