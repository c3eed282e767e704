"""Defaults shared by the presets `hlrp_vla` and `hlrp_diffusion`: Cosmos-Reason2-2B, and their names of options.

This file must not use `from __future__ import annotations`, because LeRobot reads the types of the fields.
"""

from dataclasses import dataclass
from typing import Any

from hlrp.runtime.checks import raises_parsing_errors

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass
class VLAPreset:
    """Options of a Qwen3-VL chat model of two billion parameters, which needs a GPU and a download from the hub.

    A preset lists this mixin before its `HLRPConfig` base. The mixin does not inherit from `HLRPConfig`: it would
    then repeat all fields, and its defaults would replace those of the other base.
    """

    vla_model_name: str | None = "nvidia/Cosmos-Reason2-2B"
    """Hub name or local folder of a Qwen3-VL chat model. None: a small untrained model of size demo, built offline."""
    image_size: tuple[int, int] | None = (224, 224)
    """Height and width of the VLM's input images, in pixels. None: those of vla_checkpoint_path, or else 64x64."""
    torch_dtype: str = "bf16"
    """Type of the VLM's weights: bf16, fp16 or fp32."""
    dtype: str = ""
    """Type of the VLM's weights under the name of the other policies. Set from torch_dtype; leave it out."""
    laq_checkpoint_path: str | None = ""
    """Folder of the LAQ, or its name on the hub. Training needs it if latent_targets is online or if actions are
    decoded by the LAQ's decoder; inference does not need it."""

    action_start_token: str = "<ACTION>"
    """Token that opens an answer in action tokens."""
    action_end_token: str = "</ACTION>"
    """Token that closes an answer in action tokens."""
    action_token_fmt: str = "<ACT_{i}>"
    """Format of the token of latent code i; must contain `{i}`."""

    optimizer_lr: float = 1e-5
    """Peak learning rate of AdamW."""
    scheduler_warmup_steps: int = 1000
    """Optimizer steps over which the learning rate grows from 0 to its peak."""
    scheduler_decay_lr: float = 1e-6
    """Learning rate at the end of the schedule."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        if self.torch_dtype not in _DTYPES:
            raise ValueError(f"torch_dtype must be one of {', '.join(_DTYPES)}, got {self.torch_dtype!r}")
        dtype = _DTYPES[self.torch_dtype]
        if self.dtype not in ("", dtype):
            raise ValueError(
                f"--policy.dtype={self.dtype} and --policy.torch_dtype={self.torch_dtype} differ; set both alike, or "
                "leave out dtype"
            )
        self.dtype = dtype
        super().__post_init__()  # pyright: ignore[reportAttributeAccessIssue]

    def vla_choices(self) -> dict[str, Any]:
        """Settings that must equal those of a trained VLA, including the action tokens if they are not the default."""
        choices = super().vla_choices()  # pyright: ignore[reportAttributeAccessIssue]
        tokens = {name: getattr(self, name) for name in ("action_start_token", "action_end_token", "action_token_fmt")}
        is_usual = all(getattr(VLAPreset, name) == value for name, value in tokens.items())
        return choices if is_usual else {**choices, "tokens": tokens}
