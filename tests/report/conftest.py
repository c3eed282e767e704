"""One small finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.utils.io_utils import write_video

WriteVideo = Callable[..., Path]


@pytest.fixture
def report() -> dict[str, Any]:
    return {
        "seconds_total": 1540.0,
        "stages": {"collect demonstrations": 171.4, "train LAQ": 1305.6, "label": 63.0},
        "peak_memory_gib": 3.42,
        "laq": {
            "clips": 400,
            "probe_r2": 0.312,
            "probe_r2_interval": [0.25, 0.36],
            "probe_r2_quantized": 0.29,
            "probe_r2_vectors": 0.667,
            "probe_r2_frame_only": -0.025,
            "probe_r2_pixels": 0.848,
            "probe_r2_pixels_and_codes": 0.871,
            "probe_r2_relative": 0.21,
            "probe_r2_relative_vectors": 0.44,
            "probe_gain": 0.023,
            "probe_gain_interval": [0.01, 0.04],
            "copy_gain": 0.224,
            "copy_gain_moving": 0.3,
            "permuted_gain_ratio": 0.1,
            "still_change_ratio": 0.02,
            "transfer_consistency": 0.8,
            "transfer_chance": 0.3,
            "transfer_r2": 0.6,
            "self_consistency": 0.9,
            "perplexity": [3.6, 1.0],
            "dead_codes": [0, 3],
            "code_usage": [[0.4, 0.3, 0.2, 0.1], [0.0, 1.0, 0.0, 0.0]],
            "tuple_entropy_bits": 1.8,
            "tuple_entropy_bits_max": 4.0,
            "distinct_tuples": 4,
            "still_modal_share": 0.95,
            "reversal_correlation": 0.7,
            "reversal_changed_codes": 0.6,
        },
        "foundation": {
            "decoded_accuracy": 0.612,
            "decoded_accuracy_interval": [0.58, 0.64],
            "constant_guess_accuracy": 0.255,
            "constant_guess_is_of_training": True,
            "gain_over_guessing": 0.479,
            "last_code_accuracy": 0.4,
            "last_code_frames": 900,
            "teacher_forced_accuracy": 0.643,
            "exact_sequence_accuracy": 0.234,
            "cross_entropy_bits": [1.1, 1.3],
            "label_entropy_bits": [1.9, 1.8],
            "calibration_error": 0.04,
        },
        "policies": {
            "hlrp_vla_direct": {
                "success_rate": 0.75,
                "episodes": 20,
                "interval": [0.53, 0.89],
                "tasks": {"drawer-open-v3": 0.9, "door-open-v3": 0.6},
                "task_episodes": {"drawer-open-v3": 10, "door-open-v3": 10},
                "train_seconds": 301.0,
            },
            "act": {
                "success_rate": 0.25,
                "episodes": 8,
                "interval": [0.07, 0.59],
                "tasks": {"drawer-open-v3": 0.25},
                "task_episodes": {"drawer-open-v3": 8},
                "train_seconds": 42.0,
            },
        },
        "versions": {"lerobot": "0.6.1", "torch": "2.10.0"},
        "seed": 1234,
        "commands": {"train LAQ": "hlrp-train-laq --steps=1200 --output_dir=outputs/demo/laq"},
    }


@pytest.fixture
def make_video(tmp_path: Path) -> WriteVideo:
    """Write a video as lerobot-eval does."""

    def write(name: str, *, frames: int, side: int = 32, fps: int = 20, level: int = 200) -> Path:
        path = tmp_path / name
        write_video(path, [np.full((side, side, 3), level, dtype=np.uint8)] * frames, fps)
        return path

    return write
