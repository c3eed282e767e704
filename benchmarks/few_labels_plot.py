"""Plots of the few-labels benchmark: success over labelled episodes, what video adds, and all methods side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from hlrp.report.plots.style import FAINT, INK, PALETTE, figure_style, new_figure, png


def success_figure(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], kinds: Mapping[str, str]) -> bytes | None:
    """Draw success rates with 95 % intervals over the labelled episodes of a task: a plot for each kind of method.

    Args:
        cells: `success` and `interval` by method and budget.
        kinds: What each method learns from. Methods without a kind are left out.

    Returns:
        A PNG file; None if there is nothing to draw.
    """
    lines = _with_all_labels({name: cells[name] for name in kinds if name in cells})
    shown = [kind for kind in dict.fromkeys(kinds.values()) if any(kinds[name] == kind for name in lines)]
    if not shown:
        return None
    budgets = in_order({budget for line in lines.values() for budget in line})
    with figure_style():
        figure = new_figure(0.6 + 2.1 * math.ceil(len(shown) / 2))
        plots = figure.subplots(math.ceil(len(shown) / 2), 2, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, kind in zip(plots, shown, strict=False):
            _draw_lines(axes, {name: line for name, line in lines.items() if kinds[name] == kind}, budgets)
            axes.set_title(kind, fontsize=9)
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
        for axes in plots[len(shown) :]:
            axes.set_visible(False)
        figure.supxlabel("labelled episodes of each task", color=FAINT, fontsize=9)
        figure.supylabel("success", color=FAINT, fontsize=9)
        return png(figure)


_SAME_WITH_ALL_LABELS = {
    "bc": "all_labels_bc",
    "act": "all_labels_act",
    "act_augmented": "all_labels_act_augmented",
    "hlrp_vla_direct": "all_labels_vla_direct",
    "hlrp_action_expert_latent": "all_labels",
}
"""Methods that train the same policy on the true actions of all episodes."""


def _with_all_labels(
    cells: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Budgets of each method; those of methods that use all labels belong to the same policy with fewer labels."""
    lines = {name: dict(found) for name, found in cells.items()}
    for name, same in _SAME_WITH_ALL_LABELS.items():
        if name in lines and same in lines:
            lines[name] |= lines.pop(same)
    return lines


def _draw_lines(axes: Any, lines: Mapping[str, Mapping[str, Mapping[str, Any]]], budgets: list[str]) -> None:
    """Draw the success of methods over the budgets."""
    for number, (name, found) in enumerate(lines.items()):
        known = [budget for budget in budgets if budget in found]
        # Points of one budget are moved apart, so that their intervals do not cover each other.
        places = [budgets.index(budget) + 0.06 * (number - (len(lines) - 1) / 2) for budget in known]
        rates = [found[budget]["success"] for budget in known]
        colour = PALETTE[number % len(PALETTE)]
        axes.plot(places, rates, "-o", markersize=4, color=colour, label=name)
        low, high = zip(*(found[budget]["interval"] for budget in known), strict=True)
        axes.vlines(places, low, high, color=colour, linewidth=1, alpha=0.5)
    axes.set_xticks(range(len(budgets)), budgets)
    axes.set_xlim(-0.4, len(budgets) - 0.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"], color=INK)
    axes.grid(axis="y")


_ALONE, _LATENTS, _READ, _SCRATCH, _ALL_TRUE = (
    "labelled episodes alone",
    "labelled episodes + latent actions of all video",
    "labelled episodes + actions predicted from all video",
    "… predicted by a model that did not start from the LAQ",
    "all true actions, for comparison",
)
_NETWORKS = {
    "LeRobot's ACT": {_ALONE: "act", _READ: "pseudo_act", _ALL_TRUE: "all_labels_act"},
    "ACT, shifted images": {
        _ALONE: "act_augmented",
        _READ: "pseudo_act_augmented",
        _ALL_TRUE: "all_labels_act_augmented",
    },
    "our action expert": {_ALONE: "bc", _SCRATCH: "idm_bc", _READ: "pseudo_bc", _ALL_TRUE: "all_labels_bc"},
    "hlrp_vla_direct": {
        _ALONE: "no_video_vla_direct",
        _LATENTS: "hlrp_vla_direct",
        _READ: "pseudo_vla_direct",
        _ALL_TRUE: "all_labels_vla_direct",
    },
}
"""Methods that train the same network on different data, by network and by what it learns from."""
_COLOURS = {_ALONE: PALETTE[0], _LATENTS: PALETTE[3], _READ: PALETTE[1], _SCRATCH: PALETTE[2], _ALL_TRUE: FAINT}


def video_figure(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bytes | None:
    """Draw success with the labelled episodes alone and with video: a plot for each network.

    Args:
        cells: `success` and `interval` by method and budget.

    Returns:
        A PNG file; None if no network was trained in more than one way.
    """
    shown = {name: rows for name, rows in _NETWORKS.items() if len(set(rows.values()) & cells.keys()) > 1}
    if not shown:
        return None
    found_rows = [cells[name] for rows in shown.values() for name in rows.values() if name in cells]
    budgets = in_order({budget for found in found_rows for budget in found} - {"all"})
    lowest = min(row["interval"][0] for found in found_rows for row in found.values())
    with figure_style():
        figure = new_figure(3.0)
        plots = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (network, rows) in zip(plots, shown.items(), strict=True):
            _draw_network(axes, {kind: cells[name] for kind, name in rows.items() if name in cells}, budgets)
            axes.set_title(network, fontsize=9)
            axes.set_xticks(range(len(budgets)), budgets)
            axes.set_xlim(-0.3, len(budgets) - 0.6)
            axes.set_xlabel("labelled episodes per task", color=FAINT, fontsize=8)
            axes.set_ylim(math.floor(10 * lowest) / 10, 1)
            axes.yaxis.set_major_formatter("{x:.0%}")
            axes.grid(axis="y")
        plots[0].set_ylabel("success", color=FAINT)
        handles, labels = _legend(plots)
        order = sorted(range(len(labels)), key=lambda number: list(_COLOURS).index(labels[number]))
        figure.legend(
            [handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=2, fontsize=8
        )
        return png(figure)


def _draw_network(axes: Any, rows: Mapping[str, Mapping[str, Mapping[str, Any]]], budgets: list[str]) -> None:
    """Draw the methods of one network: a line over the budgets, or a horizontal line for all actions."""
    for number, (learns_from, found) in enumerate(rows.items()):
        colour = _COLOURS[learns_from]
        if "all" in found:
            axes.axhspan(*found["all"]["interval"], color=colour, alpha=0.15, linewidth=0)
            axes.axhline(found["all"]["success"], color=colour, linestyle=":", label=learns_from)
            continue
        known = [budget for budget in budgets if budget in found]
        # Points of one budget are moved apart, so that their intervals do not cover each other.
        places = [budgets.index(budget) + 0.06 * (number - 1) for budget in known]
        rates = [found[budget]["success"] for budget in known]
        axes.plot(places, rates, "-o", color=colour, label=learns_from)
        axes.vlines(places, *zip(*(found[budget]["interval"] for budget in known), strict=True), color=colour)
        if learns_from != _SCRATCH:
            offset = (7, -14 if learns_from in (_ALONE, _LATENTS) else 5)
            for place, rate in zip(places, rates, strict=True):
                axes.annotate(f"{rate:.0%}", (place, rate), offset, textcoords="offset points", fontsize=8)


def methods_figure(rows: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, str]) -> bytes:
    """Draw the success rates of all methods at one number of labelled episodes, the best at the top.

    Args:
        rows: `success` and `interval` by method.
        kinds: What each method learns from, which gives the colours. It lists all methods, so that a kind has the same
            colour in every plot.

    Returns:
        A PNG file.
    """
    order = sorted(rows, key=lambda name: rows[name]["success"])
    colours = dict(zip(dict.fromkeys(kinds.values()), PALETTE, strict=False))
    with figure_style():
        figure = new_figure(0.9 + 0.24 * len(rows))
        axes = figure.subplots()
        for place, name in enumerate(order):
            colour, (low, high) = colours[kinds[name]], rows[name]["interval"]
            axes.hlines(place, low, high, color=colour, linewidth=2.5, alpha=0.45)
            axes.plot(rows[name]["success"], place, "o", color=colour, markersize=6)
            axes.text(1.01, place, f"{rows[name]['success']:.0%}", va="center", fontsize=8)
        for kind in dict.fromkeys(kinds[name] for name in reversed(order)):
            axes.plot([], [], "-o", color=colours[kind], label=kind)
        axes.set_yticks(range(len(order)), order, color=INK)
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        axes.set_xlabel("success, with 95 % intervals", color=FAINT)
        axes.grid(axis="x")
        figure.legend(loc="outside upper center", ncols=2, fontsize=8)
        return png(figure)


def in_order(budgets: Iterable[str]) -> list[str]:
    """Budgets by their number of labelled episodes; all labels come last."""
    return sorted(budgets, key=lambda budget: math.inf if budget == "all" else int(budget))


def _legend(plots: Any) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axes in plots:
        found |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)
