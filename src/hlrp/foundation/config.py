"""Options that all foundation models share, and the registry of the configurations of all backends.

The file imports neither torch nor transformers, so that `--help` and a refused option answer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import draccus

from hlrp.runtime.checks import require_number, require_numbers, require_one_of
from hlrp.runtime.class_paths import register_class
from hlrp.runtime.size_limits import LARGEST_SIDE_PX, WIDEST_LAYER
from hlrp.storage.plain_values import from_plain
from hlrp.training.config import OptimizerConfig

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Names of the weight types that a configuration can choose."""
EMBEDDED_SIZES = ("debug", "demo")
"""Names of the sizes of the small models that are built offline."""
DEFAULT_BACKEND = "qwen3vl_chat"
"""Backend that a command uses if its options name none."""
BACKENDS: dict[str, str] = {}
"""Class of the model of every backend as "module:Class", by the backend's name; filled by `register_backend`."""


@dataclass(frozen=True, kw_only=True)
class FoundationOptimizerConfig(OptimizerConfig):
    """AdamW with a linear warmup and a cosine decay."""

    lr: float = 2e-3
    """Peak learning rate. The default suits the small embedded models; use about 1e-5 for a pretrained hub model."""


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Size and placement of the LoRA adapters."""

    rank: int = 0
    """Rank of every LoRA adapter; 0 turns LoRA off and trains the weights directly."""
    alpha: float = 16.0
    """Scale of LoRA: an adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout probability on the input of every LoRA adapter, in training."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers of the language model that get a LoRA adapter, named by the last part of their module names."""

    def __post_init__(self) -> None:
        require_number("lora.rank", self.rank, at_least=0, limit=WIDEST_LAYER)
        require_number("lora.alpha", self.alpha, above=0)
        require_number("lora.dropout", self.dropout, at_least=0, below=1)
        if self.rank and not self.target_modules:
            raise ValueError("lora.target_modules names no layer; leave it out for all layers of the language model")

    @property
    def is_on(self) -> bool:
        """Whether LoRA adapters are used."""
        return self.rank > 0


@dataclass(frozen=True, kw_only=True)
class BackendConfig(draccus.ChoiceRegistry):
    """Options that all foundation backends share: backbone, image input, and which weights are trained."""

    model_name: str | None = None
    """Hub name or local folder of the pretrained backbone; None builds a small untrained model offline."""
    embedded_size: str = "demo"
    """Size of the small offline model that is built if model_name is None: demo or debug."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width that the VLM's images are resized to, in pixels."""
    system_prompt: str = "You are a robot policy. Reply only with action tokens."
    """System prompt of every conversation. Empty: the chat template decides whether there is a system turn."""
    attn_implementation: str = "sdpa"
    """Attention implementation of transformers: sdpa, eager or flash_attention_2."""
    dtype: str = "float32"
    """Type of the backbone's weights: float32, bfloat16 or float16."""
    freeze_backbone: bool = False
    """Freeze the pretrained backbone. Only the embedding rows of the action tokens, or the latent head, are trained."""
    freeze_vision_tower: bool = False
    """Freeze the vision tower and its projection into the language model."""
    lora: LoRASettings = field(default_factory=LoRASettings)
    """LoRA adapters on the language model. If they are on, the backbone's own weights are frozen."""
    gradient_checkpointing: bool = False
    """Recompute the activations in the backward pass: less memory, more time."""
    random_shift_px: int = 2
    """Augmentation: in training, shift every image by up to this many pixels along each axis, after resizing."""

    @classmethod
    def default_choice_name(cls) -> str:
        """Backend that a command uses if its options name none."""
        return DEFAULT_BACKEND

    def __post_init__(self) -> None:
        require_one_of("dtype", self.dtype, DTYPE_NAMES)
        require_numbers(self, "random_shift_px", at_least=0)
        require_numbers(self, "image_size", at_least=1, limit=LARGEST_SIDE_PX)
        if self.model_name is None:
            require_one_of("embedded_size", self.embedded_size, EMBEDDED_SIZES)
        if self.lora.is_on and self.freeze_backbone:
            raise ValueError(
                "freeze_backbone trains no weight of the backbone and lora trains some; choose one of them"
            )

    @property
    def needs_vectors(self) -> bool:
        """Whether labels must hold latent vectors beside the codes."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Configuration as plain JSON values, which `from_dict` reads."""
        return draccus.encode(asdict(self))

    @classmethod
    def from_dict[C: BackendConfig](cls: type[C], values: Mapping[str, Any]) -> C:
        """Build a configuration from the values that `to_dict` returns.

        Raises:
            ValueError: If a name is unknown or a value has the wrong type.
        """
        return from_plain(cls, dict(values), at="config")


def register_backend[C: BackendConfig](name: str, path: str) -> Callable[[type[C]], type[C]]:
    """Class decorator of a backend's configuration, which makes the backend known under `name`.

    Commands and policies then accept the backend, and checkpoints store its name.

    Args:
        name: Name of the backend.
        path: Class of the model as "module:Class", a `FoundationBackend`. It is imported when a model is built.

    Raises:
        ValueError: If `path` has another form, or `name` already belongs to another backend.
    """

    def register(config: type[C]) -> type[C]:
        register_class(BACKENDS, name, path)
        return BackendConfig.register_subclass(name)(config)

    return register
