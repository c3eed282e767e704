"""Configuration of the foundation models: backbone, head, trained parts, LoRA and optimizer.

The file imports neither torch nor transformers, so that `--help` and a refused option answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import draccus

from hlrp.runtime.checks import require_number, require_numbers, require_one_of
from hlrp.storage.plain_values import from_plain
from hlrp.training.config import OptimizerConfig

HEADS = ("query", "pooled")
"""Names of the latent heads that a configuration can choose."""


_LOSSES = ("codes", "vocabulary")
DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Names of the weight types that a configuration can choose."""
EMBEDDED_SIZES = ("debug", "demo")
"""Names of the sizes of the small models that are built offline."""


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
        require_number("lora.rank", self.rank, at_least=0)
        require_number("lora.alpha", self.alpha, above=0)
        require_number("lora.dropout", self.dropout, at_least=0, below=1)
        if self.rank and not self.target_modules:
            raise ValueError("lora.target_modules names no layer; leave it out for all layers of the language model")

    @property
    def is_on(self) -> bool:
        """Whether LoRA adapters are used."""
        return self.rank > 0


@dataclass(frozen=True, kw_only=True)
class ActionTokens:
    """Text form of the action tokens in a chat model's answer."""

    action_start_token: str = "<ACTION>"
    """Token that opens an answer in action tokens."""
    action_end_token: str = "</ACTION>"
    """Token that closes an answer in action tokens."""
    action_token_fmt: str = "<ACT_{i}>"
    """Format of the token of latent code i; must contain `{i}`."""

    def __post_init__(self) -> None:
        if "{i}" not in self.action_token_fmt:
            raise ValueError(f"action_token_fmt must contain '{{i}}', got {self.action_token_fmt!r}")
        if self.action_start_token == self.action_end_token:
            raise ValueError(
                f"action_start_token and action_end_token must differ, got {self.action_end_token!r} twice"
            )

    def spell(self, code: int) -> str:
        """Text of the token of one latent code."""
        return self.action_token_fmt.format(i=code)

    def format(self, codes: Sequence[int]) -> str:
        """Text of a whole answer for `codes`, without the end-of-sequence token."""
        return " ".join([self.action_start_token, *map(self.spell, codes), self.action_end_token])


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
    """Augmentation: in training, shift every image by up to this many pixels along each axis, before resizing."""

    @classmethod
    def default_choice_name(cls) -> str:
        """Backend that a command uses if its options name none."""
        return "qwen3vl_chat"

    def __post_init__(self) -> None:
        require_one_of("dtype", self.dtype, DTYPE_NAMES)
        require_numbers(self, "random_shift_px", at_least=0)
        require_numbers(self, "image_size", at_least=1)
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


@BackendConfig.register_subclass("qwen3vl_chat")
@dataclass(frozen=True, kw_only=True)
class QwenVLChatConfig(BackendConfig):
    """Options of a Qwen3-VL chat model. Image sides must be multiples of its patch size times its merge size."""

    tokens: ActionTokens = field(default_factory=ActionTokens)
    """Text form of the action tokens in the model's answer."""
    loss_over: str = "codes"
    """Classes of the cross-entropy. codes: the k codes of each slot. vocabulary: all tokens, over the whole answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("loss_over", self.loss_over, _LOSSES)


@BackendConfig.register_subclass("smol_latent_head")
@dataclass(frozen=True, kw_only=True)
class SmolLatentHeadConfig(BackendConfig):
    """Options of a SmolVLM2 with a latent head. Images must be square and at most the vision tower's image size."""

    system_prompt: str = "You are a robot policy."
    """System prompt of every conversation. Empty: no system turn."""
    head: str = "query"
    """Latent head. query: one learned query per code slot attends to the prompt. pooled: an MLP on the mean token."""
    head_layers: int = 1
    """Transformer decoder blocks of the query head, or hidden layers of the pooled head."""
    head_heads: int = 4
    """Attention heads of the query head; must divide the width of the language model."""
    num_vlm_layers: int | None = None
    """Use only the first so many layers of the language model, as SmolVLA (arXiv:2506.01844) does. None: all layers."""
    vector_loss_weight: float = 0.0
    """Weight of the flow-matching loss on latent vectors before quantization; 0 builds no continuous head."""
    flow_steps: int = 4
    """Euler steps from noise to a predicted latent vector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("head", self.head, HEADS)
        require_numbers(self, "head_layers", "head_heads", "flow_steps", "num_vlm_layers", at_least=1)
        require_numbers(self, "vector_loss_weight", at_least=0)

    @property
    def needs_vectors(self) -> bool:
        """Whether labels must hold latent vectors: true if the model has a continuous head."""
        return self.vector_loss_weight > 0
