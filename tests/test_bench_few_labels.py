"""The few-labels benchmark: its jobs, its statistics, and the options it gives to each method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import draccus
import pytest
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.datasets.dataset_reader import DatasetReader
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.transforms.transforms import ImageTransforms

from benchmarks.few_labels import BenchConfig, _groups, main
from benchmarks.few_labels_cells import RANDOM_SHIFT, World, cell_jobs, labeller_jobs, policy_flags
from benchmarks.few_labels_jobs import Job, run_jobs
from benchmarks.few_labels_methods import METHODS, Cell, budget_name, planned_cells
from benchmarks.few_labels_plot import in_order, methods_figure, success_figure, video_figure
from benchmarks.few_labels_statistics import cell_summary, paired_difference
from benchmarks.few_labels_tables import success_table
from benchmarks.few_labels_upstream import choose_episodes
from benchmarks.running import merge_json, require_same_settings
from benchmarks.train_in_memory import keep_in_memory
from hlrp.data.episode_split import split_episodes
from tiny_datasets import LENGTHS


def touching(path: Path, order: list[str]) -> Any:
    def run() -> None:
        order.append(path.name)
        path.touch()

    return run


def test_jobs_run_after_what_they_need_and_only_once(tmp_path: Path) -> None:
    first, second, order = tmp_path / "first", tmp_path / "second", []
    jobs = [
        Job("second", second, touching(second, order), (first,)),
        Job("first", first, touching(first, order)),
    ]
    assert run_jobs(jobs, workers=2) == []
    assert order == ["first", "second"]
    assert run_jobs(jobs, workers=2) == []
    assert order == ["first", "second"]


def test_a_job_that_fails_stops_only_those_that_need_it(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no data")

    lost, good, order = tmp_path / "lost", tmp_path / "good", []
    jobs = [
        Job("bad", lost, fail),
        Job("waiting", tmp_path / "never", touching(tmp_path / "never", order), (lost,)),
        Job("good", good, touching(good, order)),
    ]
    failed = run_jobs(jobs, workers=1)
    assert order == ["good"]
    assert [sentence.partition(":")[0] for sentence in failed] == ["bad", "waiting"]


def test_a_cell_counts_all_seeds_and_a_difference_pairs_the_episodes() -> None:
    one = {0: {"a": [True, True], "b": [True, False]}, 1: {"a": [True, True], "b": [True, True]}}
    other = {0: {"a": [True, False], "b": [False, False]}}
    summary = cell_summary(one)
    assert summary["success"] == 7 / 8
    assert summary["seeds"] == {"0": 0.75, "1": 1.0}
    assert summary["outcomes"]["0"] == {"a": "11", "b": "10"}
    assert summary["interval"][0] < 7 / 8 < summary["interval"][1]
    found = paired_difference(one, other)
    assert found is not None
    assert found["difference"] == 0.5  # only the seed that both have counts
    assert found["episodes"] == 4
    assert found["seeds"] == {"0": 0.5}
    assert found["interval"][0] <= 0.5 <= found["interval"][1]
    assert paired_difference(one, {2: {"a": [True]}}) is None


def test_a_second_evaluation_of_the_same_initial_states_narrows_no_interval() -> None:
    won, lost = [True, False, True, True, False, True], [False, False, True, False, False, True]
    once = paired_difference({0: {"a": won}}, {0: {"a": lost}})
    twice = paired_difference({0: {"a": won}, 1: {"a": won}}, {0: {"a": lost}, 1: {"a": lost}})
    assert once is not None
    assert twice is not None
    assert twice["interval"] == once["interval"]
    assert twice["episodes"] == 12


def test_only_the_named_budgets_and_worlds_are_run() -> None:
    cells = planned_cells(quick=False, seeds=2)
    (group,) = _groups(BenchConfig(budgets=[1], worlds=["clean"]), cells)
    assert {(cell.world, cell.budget) for cell in group} == {("clean", 0), ("clean", 1)}
    every = _groups(BenchConfig(), cells)
    assert sum(len(one) for one in every) == len(cells)
    with pytest.raises(ValueError, match="worlds"):
        BenchConfig(worlds=["moon"])


def test_every_method_is_planned_at_its_budgets() -> None:
    cells = planned_cells(quick=False, seeds=3)
    assert len(cells) == len(set(cells))
    assert {cell.method for cell in cells} == set(METHODS)
    assert {cell.budget for cell in cells if cell.method == "oracle"} == {1, 3}
    assert {cell.budget for cell in cells if cell.method == "all_labels"} == {0}
    assert len(planned_cells(quick=True, seeds=1)) == 4
    assert cells[0].budget == 1


def test_the_output_of_every_job_is_what_another_needs_or_a_result(tmp_path: Path) -> None:
    config = BenchConfig(output=tmp_path / "few_labels.json", seeds=1)
    cells = planned_cells(quick=False, seeds=1)
    worlds = {name: World(name, config) for name in dict.fromkeys(cell.world for cell in cells)}
    jobs = [*labeller_jobs(worlds, cells), *cell_jobs(worlds, cells)]
    outputs = {job.output for job in jobs}
    assert all(path in outputs for job in jobs for path in job.after)
    assert all(worlds[cell.world].result(cell) in outputs for cell in cells)


def test_policies_train_while_labellers_run_but_are_evaluated_after_the_scores(tmp_path: Path) -> None:
    world = World("clean", BenchConfig(output=tmp_path / "few_labels.json"))
    cell, finished = Cell("clean", "bc", 1, 0), Cell("clean", "bc", 1, 1)
    world.result(finished).parent.mkdir(parents=True)
    world.result(finished).touch()
    jobs = {job.output: job for job in cell_jobs({"clean": world}, [cell, finished], after_scores=True)}
    scores = world.labeller_scores(1, 0)
    assert [path for path, job in jobs.items() if scores in job.after] == [world.result(cell)]
    assert not any(path.name.endswith("_1") for path in jobs)


def test_only_the_controls_without_video_lose_the_other_episodes(tmp_path: Path, image_dataset_root: Path) -> None:
    world = World("clean", BenchConfig(output=tmp_path / "few_labels.json"))
    world.dataset.parent.mkdir()
    world.dataset.symlink_to(image_dataset_root)
    episodes = choose_episodes(world.dataset, budget=1, seed=0)
    flags = {name: policy_flags(world, Cell("clean", name, 1, 0)) for name in METHODS}
    seen = {name for name, found in flags.items() if f"--dataset.episodes={episodes}" in found}
    assert seen == {"act", "act_augmented", "no_video_vla_direct", "action_codes_vla_direct"}
    known = {name for name, found in flags.items() if f"--policy.labelled_episodes={episodes}" in found}
    assert known == {name for name, method in METHODS.items() if method.data == "labelled"} - seen
    assert any(part.endswith("labels_no_video_1_0") for part in flags["no_video_vla_direct"])


def test_lerobot_shifts_the_pictures_of_augmented_act_as_far_as_our_policies_do() -> None:
    options = [flag.replace("--dataset.", "--") for flag in RANDOM_SHIFT]
    shift = ImageTransforms(draccus.parse(DatasetConfig, args=["--repo_id=local/demos", *options]).image_transforms)
    picture = torch.zeros(3, 64, 64)
    picture[:, 32, 32] = 1
    moved = {tuple((shift(picture)[0] == 1).nonzero()[0].tolist()) for _ in range(400)}
    assert moved == {(32 + down, 32 + right) for down in range(-2, 3) for right in range(-2, 3)}


def test_results_of_other_steps_are_not_mixed_with_earlier_ones(tmp_path: Path) -> None:
    require_same_settings(tmp_path, {"steps": 400})
    require_same_settings(tmp_path, {"steps": 400})
    with pytest.raises(ValueError, match=r"--steps was 400 .* 800"):
        require_same_settings(tmp_path, {"steps": 800})


def test_results_keep_what_other_benchmarks_wrote_to_the_same_file(tmp_path: Path) -> None:
    config = BenchConfig(output=tmp_path / "few_labels.json", seeds=1, summarize=True)
    merge_json(config.results, {"ranking": {"probe_r2": [0.5, 0.1, 0.8]}})
    main(config)
    assert {"ranking", "cells", "differences", "missing"} <= set(json.loads(config.results.read_text(encoding="utf-8")))


def test_a_larger_budget_contains_a_smaller_one(image_dataset_root: Path) -> None:
    one, two = (choose_episodes(image_dataset_root, budget=budget, seed=5) for budget in (1, 2))
    assert set(one) < set(two)
    assert (len(one), len(two)) == (2, 4)  # of two tasks
    assert max(two) < len(LENGTHS)


def test_the_labelled_episodes_of_a_seed_are_not_those_that_its_quantizer_holds_out(image_dataset_root: Path) -> None:
    def are_held_out(seed: int) -> bool:
        held_out = split_episodes(len(LENGTHS), held_out=0.5, seed=seed)[1]
        return set(choose_episodes(image_dataset_root, budget=1, seed=seed)) <= set(held_out.tolist())

    assert sum(are_held_out(seed) for seed in range(20)) < 10  # by chance, one in five


def test_tables_and_plots_put_all_labels_last() -> None:
    cells = {
        "bc": {"1": {"success": 0.4, "interval": [0.3, 0.5], "seeds": {"0": 0.4}}},
        "all_labels": {"all": {"success": 0.9, "interval": [0.8, 1.0], "seeds": {"0": 0.9}}},
        "bc (ball)": {"10": {"success": 0.2, "interval": [0.1, 0.3], "seeds": {"0": 0.2}}},
    }
    header = success_table({"cells": cells}).splitlines()[0]
    assert header.index("1 labelled") < header.index("10 labelled") < header.index("all labelled")
    assert in_order(["all", "10", "3"]) == ["3", "10", "all"]
    rows = {name: {"success": 0.5, "interval": [0.4, 0.6]} for name in METHODS}
    kinds = {name: method.learns_from for name, method in METHODS.items()}
    assert methods_figure(rows, kinds).startswith(b"\x89PNG")
    drawn = success_figure(cells, kinds)
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")
    assert success_figure({"bc (ball)": cells["bc (ball)"]}, kinds) is None
    assert kinds["bc"] == kinds["act"] != kinds["pseudo_bc"] == kinds["idm_bc"]
    assert [budget_name(0), budget_name(3)] == ["all", "3"]


def test_the_figure_of_video_needs_a_network_trained_with_and_without_it() -> None:
    row = {"success": 0.5, "interval": [0.4, 0.6]}
    with_ceiling = {"act": {"1": row}, "pseudo_act": {"1": row, "3": row}, "all_labels_act": {"all": row}}
    for cells in (with_ceiling, {"bc": {"1": row}, "pseudo_bc": {"1": row}}):
        figure = video_figure(cells)
        assert figure is not None
        assert figure.startswith(b"\x89PNG")
    assert video_figure({"act": {"1": row}, "pseudo_bc": {"1": row}}) is None


def test_items_in_memory_are_those_of_lerobot(image_dataset_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "root": image_dataset_root,
        "delta_timestamps": {"action": [0.0, 0.1]},
        "episodes": [1, 4],
    }
    read = LeRobotDataset("local/x", **options)
    monkeypatch.setattr(DatasetReader, "_load_hf_dataset", DatasetReader._load_hf_dataset)  # restored after the test
    keep_in_memory()
    kept = LeRobotDataset("local/x", **options)
    assert len(kept) == len(read)
    for row in (0, 7, len(read) - 1):
        one, other = read[row], kept[row]
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
            assert same, name
