"""What the two presets share: Cosmos-Reason2-2B, and the names that the older plan of this project gave its options.

Not `from __future__ import annotations`: LeRobot reads the types of the fields.
"""

from dataclasses import dataclass
from typing import Any

from hlrp.runtime.checks import told_by_draccus

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass
class VLAPreset:
    """A Qwen3-VL chat model of two billion parameters: needs the hub or its cache once, and a GPU.

    Stands before an `HLRPConfig` among the bases. It is none itself, or its defaults would hide that one's.
    """

    vla_model_name: str | None = "nvidia/Cosmos-Reason2-2B"
    """Hub name or folder of a Qwen3-VL chat model. None: the embedded demo-size model, offline and untrained."""
    image_size: tuple[int, int] | None = (224, 224)
    """Height and width the VLM sees. None: the checkpoint's, else 64x64."""
    torch_dtype: str = "bf16"
    """Type of the VLM's weights: bf16, fp16 or fp32."""
    dtype: str = ""
    """The same in LeRobot's words; follows torch_dtype."""
    laq_checkpoint_path: str | None = ""
    """Folder of the LAQ, or its name on the hub, for online targets and for a decoder that is its own; not needed to
    act."""

    action_start_token: str = "<ACTION>"
    """Opens an answer."""
    action_end_token: str = "</ACTION>"
    """Closes an answer."""
    action_token_fmt: str = "<ACT_{i}>"
    """Spelling of code i; must contain `{i}`."""

    optimizer_lr: float = 1e-5
    """Peak learning rate of AdamW."""
    scheduler_warmup_steps: int = 1000
    """Optimizer steps until the peak of the learning rate."""
    scheduler_decay_lr: float = 1e-6
    """Learning rate at the end of the decay."""

    @told_by_draccus
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
        """Settings that a trained VLA has made for good; the spelling of action tokens, if it is not the usual one."""
        choices = super().vla_choices()  # pyright: ignore[reportAttributeAccessIssue]
        tokens = {name: getattr(self, name) for name in ("action_start_token", "action_end_token", "action_token_fmt")}
        is_usual = all(getattr(VLAPreset, name) == value for name, value in tokens.items())
        return choices if is_usual else {**choices, "tokens": tokens}
