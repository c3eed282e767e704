"""Real-time chunking (arXiv:2506.07339): each new chunk is consistent with the chunk that is being executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from torch import Tensor

from hlrp.flow_matching import Guide, Velocity


def make_processor(config: RTCConfig | None) -> RTCProcessor | None:
    """LeRobot's RTC processor for `config`; None if `config` is None."""
    return None if config is None else RTCProcessor(config)


def chunk_guide(rtc: RTCProcessor | None, kwargs: Mapping[str, Any]) -> Guide | None:
    """Function that corrects the velocity of every denoising step; None if real-time chunking is off.

    Args:
        rtc: LeRobot's RTC processor.
        kwargs: Arguments of `predict_action_chunk`: `inference_delay`, `prev_chunk_left_over` and `execution_horizon`.
    """
    if rtc is None or not rtc.rtc_config.enabled:
        return None

    def guided(chunk: Float[Tensor, "b h a"], time: float, velocity: Velocity) -> Float[Tensor, "b h a"]:
        return rtc.denoise_step(
            x_t=chunk,
            prev_chunk_left_over=kwargs.get("prev_chunk_left_over"),
            inference_delay=kwargs.get("inference_delay", 0),
            time=time,
            original_denoise_step_partial=lambda x: velocity(x, time),
            execution_horizon=kwargs.get("execution_horizon"),
        )

    return guided
