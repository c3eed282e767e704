"""The sections `drawn_tasks`, `causes` and `ranking` of the stage 1 benchmark: their jobs and what they compute."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import laq_causes, laq_tasks
from benchmarks.laq_causes import correlations, moving_share
from benchmarks.laq_ranking import QUANTIZERS, RankingRun, card_numbers, quantizer_jobs, rank, run, spearman
from benchmarks.laq_tasks import ALL_TASKS, TaskRun, join, task_scores
from benchmarks.running import run_sections
from hlrp.storage.files import write_json
from tiny_datasets import TASKS


@pytest.fixture
def settings(tmp_path: Path) -> RankingRun:
    return RankingRun(tmp_path / "data", tmp_path / "ranking", ("a-v3",))


def test_jobs_of_a_quantizer_follow_each_other_to_its_result(settings: RankingRun) -> None:
    for name in QUANTIZERS:
        jobs = quantizer_jobs(settings, name)
        for before, job in pairwise(jobs):
            assert job.after == (before.output,)
        assert jobs[-1].output == settings.folder / f"{name}.json"
    assert len(QUANTIZERS) >= 12


def test_a_ranking_of_finished_quantizers_trains_nothing(settings: RankingRun) -> None:
    names = list(QUANTIZERS)[:5]
    for number, name in enumerate(names):
        for job in quantizer_jobs(settings, name)[:3]:
            job.output.mkdir(parents=True)
        write_json(
            settings.folder / f"{name}.json",
            {"card": {"probe_r2": float(number), "copy_gain": -float(number)}, "success": number / 10},
        )
    ranking = run(settings, names)
    assert ranking["probe_r2"][0] == pytest.approx(1)
    assert ranking["copy_gain"][0] == pytest.approx(-1)
    with pytest.raises(ValueError, match="--steps was 600"):
        run(RankingRun(settings.dataset, settings.folder, settings.tasks, steps=800), names)


def test_a_ranking_of_too_few_quantizers_says_what_is_missing(settings: RankingRun) -> None:
    name = "default_0"
    for job in quantizer_jobs(settings, name):
        job.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(job.output, {"card": {"probe_r2": 0.5}, "success": 0.5})
    with pytest.raises(RuntimeError, match="1 quantizers were evaluated, and a ranking needs 4 or more"):
        run(settings, [name])


def test_spearman_depends_on_order_alone_and_shares_ranks_of_ties() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert spearman(values, np.exp(values))[0] == pytest.approx(1)
    assert spearman(values, -values)[0] == pytest.approx(-1)
    assert spearman(values, np.array([[1.0, 1.0, 2.0, 2.0]]))[0] == pytest.approx(4 / 20**0.5)
    assert np.isnan(spearman(values, np.ones((1, 4)))[0])


def test_a_correlation_lies_in_its_interval_and_constant_numbers_are_left_out() -> None:
    generator = np.random.default_rng(0)
    cards = {str(i): {"good": i + generator.normal(), "same": 1.0, "noise": generator.normal()} for i in range(16)}
    cards["0"]["rare"] = 1.0
    found = rank(cards, {name: int(name) / 16 for name in cards})
    for value, low, high in found.values():
        assert low <= value <= high
    assert found["good"][1] > 0.5
    assert list(found) == ["good", "noise"]  # the strongest first


def test_numbers_of_a_card_are_means_over_slots_and_known() -> None:
    card: dict[str, Any] = {
        "probe_r2": 0.5,
        "perplexity": [6.0, 8.0],
        "probe_gain": None,
        "clips": 7,
        "code_usage": [[1]],
    }
    assert card_numbers(card) == {"probe_r2": 0.5, "perplexity": 7.0}


def test_scores_of_seeds_are_averaged_and_variants_lie_side_by_side() -> None:
    def scores(codes: float | None) -> dict[str, dict[str, float | None]]:
        return {"a": {"codes": codes, "vectors": 0.6, "pixels": 0.7}}

    joined = join({"": [scores(0.2), scores(0.4), scores(None)], "_labelled": [scores(0.8)]})
    assert joined["a"] == {
        "codes": pytest.approx(0.3), "vectors": 0.6, "pixels": 0.7, "codes_labelled": 0.8, "vectors_labelled": 0.6,
    }  # fmt: skip


def test_a_task_is_scored_on_its_own_held_out_episodes(laq_path: Path, image_dataset_root: Path) -> None:
    scores = task_scores(laq_path, image_dataset_root)
    card = json.loads((laq_path / "quality.json").read_text(encoding="utf-8"))
    assert set(scores) == {*TASKS, ALL_TASKS}
    assert scores[ALL_TASKS]["codes"] == card["probe_r2"]
    # One of the six episodes is held out, so that only its task can be scored.
    assert sorted(scores[task]["codes"] is None for task in TASKS) == [False, True]


def test_finished_quantizers_of_drawn_tasks_are_not_trained_again(tmp_path: Path) -> None:
    for name in ("laq_0", "laq_labelled_0"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / f"{name}.json", {"a": {"codes": 0.25, "vectors": 0.5, "pixels": 0.75}})
    settings = TaskRun(tmp_path, tmp_path, steps=500, seeds=1, device="cpu", workers=1)
    found = laq_tasks.run(settings)["a"]
    assert found["codes"] == found["codes_labelled"] == 0.25
    with pytest.raises(ValueError, match="--steps was 500"):
        laq_tasks.run(replace(settings, steps=60))


def test_causes_are_measured_on_the_clips_of_the_scores(
    laq_path: Path, image_dataset_root: Path, tmp_path: Path
) -> None:
    scores = task_scores(laq_path, image_dataset_root)
    ((task, row),) = laq_causes.run(laq_path, image_dataset_root)["tasks"].items()
    assert row["codes"] == scores[task]["codes"]
    assert row["loss"] == pytest.approx(scores[task]["vectors"] - row["codes"])
    assert set(row["by_dimension"]) == {"a", "b", "c", "d"}
    assert row["by_dimension"]["d"] == {"codes": None, "vectors": None, "loss": None}  # this action is always zero
    assert 0 < row["moving_pixels"] < 1
    with pytest.raises(FileNotFoundError, match="run the section drawn_tasks first"):
        laq_causes.run(tmp_path / "none", image_dataset_root)


def test_a_pixel_moves_if_its_channels_change_enough() -> None:
    clips = torch.zeros(2, 2, 1, 3, 4, 4, dtype=torch.uint8)
    clips[0, 1, 0, :, 0] = 8  # a row of four pixels, by 3.1 % of the range
    clips[1, 1, 0, :, 0] = 7
    assert moving_share(clips[:, :, 0:1]).tolist() == [0.25, 0]


def test_causes_are_correlated_over_tasks() -> None:
    tasks = {
        str(number): {"loss": number, "codes": -number, "vectors": 1, "moving_pixels": number, "hand_mm": number**2,
                      "displacement": -number}
        for number in range(4)
    }  # fmt: skip
    found = correlations(tasks)
    assert found["loss"] == pytest.approx({"moving_pixels": 1, "hand_mm": 1, "displacement": -1})
    assert found["codes"]["displacement"] == pytest.approx(1)


def test_a_section_is_copied_to_another_file_whose_other_keys_are_kept(tmp_path: Path) -> None:
    output, other = tmp_path / "laq.json", tmp_path / "few_labels.json"
    write_json(other, {"cells": {"bc": 1}})
    sections = {"drawn_tasks": lambda _: {"a": 1}, "loader": lambda _: 2}
    run_sections(
        list(sections), sections, None, output, keys={"drawn_tasks": "tasks"}, quick=False, copies={"tasks": other}
    )
    assert json.loads(output.read_text()) == {"tasks": {"a": 1}, "loader": 2, "quick": False}
    assert json.loads(other.read_text()) == {"cells": {"bc": 1}, "tasks": {"a": 1}}
