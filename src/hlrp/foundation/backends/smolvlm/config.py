"""Options of the backend `smol_latent_head`. The module imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass

from hlrp.foundation.config import BackendConfig, register_backend
from hlrp.runtime.checks import require_numbers, require_one_of
from hlrp.runtime.size_limits import MOST_LAYERS

HEADS = ("query", "pooled")
"""Names of the latent heads that a configuration can choose."""


@register_backend("smol_latent_head", "hlrp.foundation.backends.smol_latent_head_backend:SmolLatentHeadBackend")
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
        require_numbers(
            self, "head_layers", "head_heads", "flow_steps", "num_vlm_layers", at_least=1, limit=MOST_LAYERS
        )
        require_numbers(self, "vector_loss_weight", at_least=0)

    @property
    def needs_vectors(self) -> bool:
        """Whether labels must hold latent vectors: true if the model has a continuous head."""
        return self.vector_loss_weight > 0
