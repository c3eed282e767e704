"""Measure what video without actions adds when few episodes have actions. One command: `make bench-few-labels`.

Six tasks of Meta-World with 30 episodes each as video, of which 1, 3 or 10 per task also have actions. Every method
trains its policy for the same number of gradient steps and is evaluated from the same initial states. Where possible,
methods with and without video have the same network, augmentation and options.

All results are kept: a finished job is not run again, so that the benchmark can be stopped at any time. Each cell
(method, budget, seed) is one JSON file; `few_labels.json` joins them.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.few_labels_cells import World, cell_jobs, labeller_jobs, once
from benchmarks.few_labels_jobs import run_jobs
from benchmarks.few_labels_methods import BALL, CLEAN, METHODS, Cell, budget_name, planned_cells
from benchmarks.few_labels_plot import methods_figure, success_figure, video_figure
from benchmarks.few_labels_statistics import cell_summary, paired_difference
from benchmarks.few_labels_tables import labeller_table, success_table
from benchmarks.running import merge_json, require_known, require_same_settings
from hlrp.cli.common import read_options, run_cli
from hlrp.runtime.checks import require_numbers
from hlrp.storage.files import new_file

_COMPARED_WITH = ("bc", "act", "idm_bc", "random_laq", "no_video_vla_direct", "action_codes_vla_direct")
"""Methods that every other method is compared with."""


@dataclass
class BenchConfig:
    """Measure how success depends on the number of labelled episodes, with and without video."""

    output: Path = Path("outputs/benchmarks/few_labels.json")
    """JSON file of the results; the runs are in a folder of the same name beside it."""
    quick: bool = False
    """A rough result in 40 to 50 minutes: one labelled episode of each task, one seed, four methods. A later full run
    continues from there."""
    seeds: int = 3
    """Seeds 0, 1, …, which differ in all weights and in which episodes are labelled. With `quick`: 1."""
    budgets: list[int] = field(default_factory=lambda: [1, 3, 10])
    """Labelled episodes of each task to run now; cells that use all labels belong to the smallest, 1."""
    worlds: list[str] = field(default_factory=lambda: [CLEAN, BALL])
    """Worlds to run now: clean, ball."""
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    """Methods to run now, by their name in the table; default: all. The labellers are scored only if all are run."""
    steps: int = 600
    """Gradient steps of every policy."""
    laq_steps: int = 500
    """Gradient steps of every quantizer."""
    foundation_steps: int = 500
    """Gradient steps of every foundation model."""
    labeller_steps: int = 300
    """Gradient steps of every inverse dynamics model."""
    batch_size: int = 64
    """Frames per step of every policy."""
    labeller_batch_size: int = 32
    """Clips per step of every inverse dynamics model."""
    labeller_frames: int = 3
    """Frames of a clip that every inverse dynamics model sees."""
    eval_episodes: int = 10
    """Evaluation episodes of each task and seed."""
    device: str = "cpu"
    """Device of all networks; the simulation runs on the CPU."""
    workers: int = 2
    """Jobs at the same time, each on one thread."""
    summarize: bool = False
    """Only join the cells that are there, and run nothing."""

    def __post_init__(self) -> None:
        require_numbers(
            self, "seeds", "steps", "laq_steps", "foundation_steps", "labeller_steps", "batch_size", at_least=1
        )
        require_numbers(self, "labeller_batch_size", "eval_episodes", "workers", at_least=1)
        require_numbers(self, "labeller_frames", at_least=2)
        require_known("worlds", self.worlds, (CLEAN, BALL))
        require_known("methods", self.methods, METHODS)
        if self.quick:
            self.seeds = 1

    @property
    def runs(self) -> Path:
        """Folder of everything that is trained and evaluated."""
        return self.output.with_suffix("")

    @property
    def results(self) -> Path:
        """JSON file of the results of this run."""
        return self.output.with_name(f"{self.output.stem}_quick.json") if self.quick else self.output


def main(config: BenchConfig) -> None:
    """Run what is missing, then print and write what was found."""
    cells = planned_cells(quick=config.quick, seeds=config.seeds)
    worlds = {name: World(name, config) for name in dict.fromkeys(cell.world for cell in cells)}
    failed: list[str] = []
    if not config.summarize:
        require_same_settings(config.runs, {name: getattr(config, name) for name in _LASTING} | _CHOICE)
    groups = [] if config.summarize else _groups(config, cells)
    for number, group in enumerate(groups, start=1):
        # First the result that takes least time: how well every labeller predicts the actions of unlabelled episodes.
        scored = set(config.methods) == set(METHODS)
        jobs = [
            *(labeller_jobs(worlds, group) if scored else []),
            *cell_jobs(worlds, group, after_scores=scored),
        ]
        failed += run_jobs(once(jobs), workers=config.workers)
        print(labeller_table(gather_labellers(worlds, cells)))
        if number < len(groups):
            print(success_table(gather(worlds, cells)), flush=True)
    results = gather(worlds, cells)
    # Other keys of the file are kept: sections of `benchmarks.laq` copy their results there.
    merge_json(config.results, {**results, "quick": config.quick, "missing": len(cells) - results["finished"]})
    _draw(config, results["cells"])
    print(success_table(results))
    print(f"{results['finished']} of {len(cells)} cells: {config.results}")
    for sentence in failed:
        print(f"failed: {sentence}")


def _draw(config: BenchConfig, cells: dict[str, Any]) -> None:
    """Write the plots: all methods over all budgets, what video adds, and each world at the smallest budget."""
    kinds = {name: method.learns_from for name, method in METHODS.items()}
    figures = {"": success_figure(cells, kinds), "_video": video_figure(cells)}
    rows = {name: found.get("1", found.get("all")) for name, found in cells.items()}
    for title, suffix in (("_methods", ""), ("_ball", f" ({BALL})")):
        shown = {name: rows[name + suffix] for name in METHODS if rows.get(name + suffix) is not None}
        if shown:
            figures[title] = methods_figure(shown, kinds)
    for name, png in figures.items():
        if png is not None:
            with new_file(config.results.with_name(f"{config.results.stem}{name}.png")) as scratch:
                scratch.write_bytes(png)


_LASTING = (
    "steps",
    "laq_steps",
    "foundation_steps",
    "labeller_steps",
    "batch_size",
    "labeller_batch_size",
    "labeller_frames",
    "eval_episodes",
    "device",
)
"""Options on which results depend, so that they must be those of the results that are there."""
_CHOICE = {"labelled_episodes": "in an order of their own"}
"""How labelled episodes are chosen. Until 2026-11-26, the labelled episodes of a seed were mostly those that the
quantizer and the foundation model of this seed had held out."""


def _groups(config: BenchConfig, cells: list[Cell]) -> list[list[Cell]]:
    """Cells to run now by world and budget, in the order of their first cell; all labels count as a budget of 1."""
    groups: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        budget = max(cell.budget, 1)
        if cell.world in config.worlds and budget in config.budgets and cell.method in config.methods:
            groups[cell.world, budget].append(cell)
    return list(groups.values())


def gather(worlds: dict[str, World], cells: list[Cell]) -> dict[str, Any]:
    """All finished cells by method and budget, and differences between methods."""
    outcomes: dict[str, dict[int, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        path = worlds[cell.world].result(cell)
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
            outcomes[_key(cell)][cell.budget][cell.seed] = found
    summary = {
        name: {budget_name(budget): cell_summary(seeds) for budget, seeds in sorted(budgets.items())}
        for name, budgets in outcomes.items()
    }
    return {
        "cells": summary,
        "differences": _differences(outcomes),
        "labellers": gather_labellers(worlds, cells),
        "finished": sum(len(seeds) for budgets in outcomes.values() for seeds in budgets.values()),
    }


def _key(cell: Cell) -> str:
    return cell.method if cell.world != BALL else f"{cell.method} ({BALL})"


def _differences(outcomes: dict[str, dict[int, dict[int, Any]]]) -> dict[str, Any]:
    """Differences of every method to the reference methods, by `method - reference` and budget."""
    found: dict[str, Any] = {}
    for name, budgets in outcomes.items():
        method, world = name.partition(" ")[::2]
        for reference in _COMPARED_WITH:
            other = outcomes.get(" ".join(filter(None, (reference, world))), {})
            found_pairs = {
                budget_name(budget): paired_difference(seeds, other.get(budget, {}))
                for budget, seeds in budgets.items()
            }
            pairs = {budget: pair for budget, pair in found_pairs.items() if pair is not None}
            if method != reference and pairs:
                found[f"{name} - {reference}"] = pairs
    return found


def gather_labellers(worlds: dict[str, World], cells: list[Cell]) -> dict[str, Any]:
    """R² of the actions of unlabelled episodes, and calibration errors, by labeller and budget: means over seeds."""
    values: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for world, budget, seed in dict.fromkeys((cell.world, cell.budget, cell.seed) for cell in cells):
        path = worlds[world].labeller_scores(budget, seed)
        if path.is_file():
            for name, scores in json.loads(path.read_text(encoding="utf-8")).items():
                values[name if world != BALL else f"{name} ({BALL})"][str(budget)].append(scores)
    return {
        name: {budget: _mean_scores(found) for budget, found in budgets.items()} for name, budgets in values.items()
    }


def _mean_scores(found: list[dict[str, float]]) -> dict[str, Any]:
    means = {key: sum(scores[key] for scores in found) / len(found) for key in found[0]}
    return {**means, "seeds": [scores["action_r2"] for scores in found]}


if __name__ == "__main__":
    arguments = ["--quick=true" if argument == "--quick" else argument for argument in sys.argv[1:]]
    run_cli(lambda: main(read_options(BenchConfig, args=arguments)))
