"""The GPU record runs on a CPU with tiny models, and tells what share of the peak a step reaches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_record import BenchConfig, main, summary


def test_the_share_of_the_peak_is_that_of_the_matrix_product() -> None:
    step = {"parameters": 2e6, "samples_per_second": 8.0, "tflops": 100.0, "peak_memory_gib": 3.0}
    text = summary({"hardware": {"tflops": 400.0}, "laq": step})
    assert "25%" in text
    assert "3.0 GiB" in text
    assert "25%" not in summary({"laq": step})


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(ValueError, match="hardware, laq"):
        BenchConfig(sections=["everything"])


@pytest.mark.slow
def test_every_section_runs_with_tiny_models(tmp_path: Path) -> None:
    main(BenchConfig(output=tmp_path / "record.json", quick=True, device="cpu"))
    found = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert found["decoding"]["generate_over_ours"] > 1
    assert found["hardware"]["tflops"] > found["training"]["tflops"] > 0
    assert found["laq"]["samples_per_second"] > 0
    assert found["labels"]["clips_per_second"]["debug"] > 0
