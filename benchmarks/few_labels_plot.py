"""Plots of the few-labels benchmark: success over labelled episodes, what video adds, and all methods side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from hlrp.report.plots.style import FAINT, INK, PALETTE, figure_style, new_figure, png


def success_figure(cells: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bytes:
    """Draw success rates with their 95 % intervals over the labelled episodes of a task.

    Args:
        cells: `success` and `interval` by method and budget. Methods whose name ends with a world in brackets are drawn
            in a plot of their own.

    Returns:
        A PNG file.
    """
    worlds: dict[str, dict[str, Mapping[str, Mapping[str, Any]]]] = {}
    for name, budgets in cells.items():
        method, world = name.partition(" ")[::2]
        worlds.setdefault(world, {})[method] = budgets
    with figure_style():
        figure = new_figure(4.2)
        plots = figure.subplots(1, max(len(worlds), 1), sharey=True, squeeze=False)[0]
        colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(_methods(worlds)))}
        # Colours repeat after the palette; methods of one colour differ in line and marker, also at a single budget.
        styles = {name: "-o" if i < len(PALETTE) else "--s" for i, name in enumerate(colours)}
        every = in_order({budget for budgets in cells.values() for budget in budgets})
        for axes, (world, methods) in zip(plots, sorted(worlds.items()), strict=False):
            for number, (name, budgets) in enumerate(methods.items()):
                known = [(budget, budgets[budget]) for budget in in_order(budgets)]
                # Points of one budget are moved apart, so that their intervals do not cover each other.
                places = [every.index(budget) + 0.035 * (number - len(methods) / 2) for budget, _ in known]
                rates = [found["success"] for _, found in known]
                low, high = zip(*(found["interval"] for _, found in known), strict=True)
                axes.plot(places, rates, styles[name], markersize=4, color=colours[name], label=name)
                axes.vlines(places, low, high, color=colours[name], linewidth=1, alpha=0.5)
            axes.set_title("with a large ball" if world else "the tasks alone", fontsize=9)
            axes.set_xticks(range(len(every)), every)
            axes.set_xlim(-0.4, len(every) - 0.6)
            axes.set_xlabel("labelled episodes of each task", color=FAINT)
            axes.set_ylim(0, 1.03)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"], color=INK)
            axes.grid(axis="y")
        plots[0].set_ylabel("success", color=FAINT)
        figure.legend(*_legend(plots), loc="outside right upper", fontsize=7.5)
        return png(figure)


_ALONE, _LATENTS, _READ, _SCRATCH, _ALL_TRUE = (
    "labelled episodes alone",
    "labelled episodes + latent actions of all video",
    "labelled episodes + actions predicted from all video",
    "… predicted by a model that did not start from the LAQ",
    "all true actions, for comparison",
)
_NETWORKS = {
    "LeRobot's ACT": {_ALONE: "act", _READ: "pseudo_act", _ALL_TRUE: "all_labels_act"},
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
            axes.set_xlabel("labelled episodes of each task", color=FAINT)
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
        kinds: What each method learns from, which gives the colours.

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


def _methods(worlds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for methods in worlds.values() for name in methods]


def _legend(plots: Any) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axes in plots:
        found |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)
