"""Which foundation model, and how it is trained, as named on a command line; without torch or transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import draccus

from hlrp.checks import require_number, require_numbers, require_one_of
from hlrp.training_config import OptimizerConfig

HEADS = ("query", "pooled")
"""Ways to make slot features, by the name a configuration gives them."""


_LOSSES = ("codes", "vocabulary")
DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Types of weights, by the name a configuration gives them."""
EMBEDDED_SIZES = ("debug", "demo")
"""Sizes of the models that are built offline."""


@dataclass(frozen=True, kw_only=True)
class FoundationOptimizerConfig(OptimizerConfig):
    """AdamW with a linear warmup and a cosine decay."""

    lr: float = 2e-3
    """Peak learning rate, for the embedded models; 1e-5 suits a pretrained hub model."""


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Size and place of the adapters."""

    rank: int = 0
    """Rank of every adapter; 0 trains the weights themselves."""
    alpha: float = 16.0
    """Scale: an adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that training drops."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers of the language model that get one, by the last part of their names."""

    def __post_init__(self) -> None:
        require_number("lora.rank", self.rank, at_least=0)
        require_number("lora.alpha", self.alpha, above=0)
        require_number("lora.dropout", self.dropout, at_least=0, below=1)
        if self.rank and not self.target_modules:
            raise ValueError("lora.target_modules names no layer; leave it out for all of the language model's")

    @property
    def is_on(self) -> bool:
        """Whether there are adapters at all."""
        return self.rank > 0


@dataclass(frozen=True, kw_only=True)
class ActionTokens:
    """Spelling of the action tokens."""

    action_start_token: str = "<ACTION>"
    """Opens an answer."""
    action_end_token: str = "</ACTION>"
    """Closes an answer."""
    action_token_fmt: str = "<ACT_{i}>"
    """Spelling of code i; must contain `{i}`."""

    def __post_init__(self) -> None:
        if "{i}" not in self.action_token_fmt:
            raise ValueError(f"action_token_fmt must contain '{{i}}', got {self.action_token_fmt!r}")
        if self.action_start_token == self.action_end_token:
            raise ValueError(
                f"action_start_token and action_end_token must differ, got {self.action_end_token!r} twice"
            )

    def spell(self, code: int) -> str:
        """The token of one code."""
        return self.action_token_fmt.format(i=code)

    def format(self, codes: Sequence[int]) -> str:
        """The answer as text, without the end-of-sequence token."""
        return " ".join([self.action_start_token, *map(self.spell, codes), self.action_end_token])


@dataclass(frozen=True, kw_only=True)
class BackendConfig(draccus.ChoiceRegistry):
    """Which backbone, how it is shown the frame, and what of it learns: what all backends have in common."""

    model_name: str | None = None
    """Hub name or local folder of the backbone; None builds an embedded small one, offline."""
    embedded_size: str = "demo"
    """Size of the embedded backbone where model_name is None: demo or debug."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width every image is resized to, in pixels."""
    system_prompt: str = "You are a robot policy. Reply only with action tokens."
    """Opens every conversation; empty leaves the system turn to the chat template."""
    attn_implementation: str = "sdpa"
    """Attention implementation of transformers: sdpa, eager or flash_attention_2."""
    dtype: str = "float32"
    """Type of the backbone's weights: float32, bfloat16 or float16."""
    freeze_backbone: bool = False
    """Train only what is new: the rows of the action tokens, or the latent head."""
    freeze_vision_tower: bool = False
    """Leave the vision tower and its projection as they are."""
    lora: LoRASettings = field(default_factory=LoRASettings)
    """Adapters on the language model, whose own weights are then frozen."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    random_shift_px: int = 2
    """In training, shift every image by up to this many pixels along each axis, before resizing."""

    @classmethod
    def default_choice_name(cls) -> str:
        """The backend of a command line that names none."""
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
        """Plain JSON values; `from_dict` takes them back."""
        return draccus.encode(asdict(self))

    @classmethod
    def from_dict[C: BackendConfig](cls: type[C], values: Mapping[str, Any]) -> C:
        """Inverse of `to_dict`.

        Raises:
            ValueError: If a value is unknown or of another kind.
        """
        try:
            return draccus.decode(cls, dict(values))
        except draccus.ParsingError as error:
            # draccus wraps what a configuration's own check says.
            reason = error if isinstance(error, draccus.utils.DecodingError) else error.__cause__ or error
            raise ValueError(f"not a configuration of {cls.__name__}: {reason}") from error


@BackendConfig.register_subclass("qwen3vl_chat")
@dataclass(frozen=True, kw_only=True)
class QwenVLChatConfig(BackendConfig):
    """A Qwen3-VL chat model: image sides are multiples of its patch size times its merge size."""

    tokens: ActionTokens = field(default_factory=ActionTokens)
    """Spelling of the action tokens."""
    loss_over: str = "codes"
    """codes compares the k codes of each slot; vocabulary is the language-model loss on the whole answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("loss_over", self.loss_over, _LOSSES)


@BackendConfig.register_subclass("smol_latent_head")
@dataclass(frozen=True, kw_only=True)
class SmolLatentHeadConfig(BackendConfig):
    """A SmolVLM2 with a latent head: images are square and at most as large as its vision tower's."""

    system_prompt: str = "You are a robot policy."
    """Opens every conversation; empty leaves the system turn out."""
    head: str = "query"
    """query: one learned query per slot reads the prompt; pooled: a perceptron on the prompt's mean."""
    head_layers: int = 1
    """Decoder blocks of the query head, hidden layers of the pooled one."""
    head_heads: int = 4
    """Attention heads of the query head; they divide the language model's width."""
    num_vlm_layers: int | None = None
    """Keep only this many of the language model's first layers, as SmolVLA (arXiv:2506.01844) does; None keeps all."""
    vector_loss_weight: float = 0.0
    """Weight of the flow-matching loss on latent vectors; 0 leaves the continuous head out."""
    flow_steps: int = 4
    """Euler steps from noise to a predicted latent vector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("head", self.head, HEADS)
        require_numbers(self, "head_layers", "head_heads", "flow_steps", "num_vlm_layers", at_least=1)
        require_numbers(self, "vector_loss_weight", at_least=0)

    @property
    def needs_vectors(self) -> bool:
        """Whether there is a continuous head."""
        return self.vector_loss_weight > 0
