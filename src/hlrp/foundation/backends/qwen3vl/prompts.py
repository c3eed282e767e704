"""Prompts of a Qwen3-VL, with multimodal rotary positions.

Shapes: l prompt tokens, g = 5 rows of the cached table of one prompt: token ids, the mask, and three rows of positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Qwen3VLProcessor

from hlrp.foundation.backends.qwen3vl.images import ImageGeometry
from hlrp.foundation.processor_parts import token_ids
from hlrp.foundation.prompt_inputs import ChatTokenizer, TokenizedPrompts

RopeIndex = Callable[..., tuple[Tensor, Tensor]]
"""Type of `Qwen3VLModel.get_rope_index`, which returns positions (3, 1, l) and offsets of a tokenized prompt."""


@dataclass(frozen=True, kw_only=True)
class Prompts(TokenizedPrompts):
    """Tokenized prompts with the positions that a Qwen model gives them."""

    position_ids: Int[Tensor, "3 b l"]
    """Multimodal rotary positions: time, height, width."""
    next_position: Int[Tensor, " b"]
    """Rotary position of the first token after the prompt, on all three axes."""


class PromptTokenizer(ChatTokenizer):
    """Tokenizer of a Qwen model's prompts; adds multimodal rotary positions."""

    def __init__(
        self,
        processor: Qwen3VLProcessor,
        geometry: ImageGeometry,
        rope_index: RopeIndex,
        *,
        system_prompt: str,
    ) -> None:
        super().__init__(processor, system_prompt=system_prompt)
        self.image_id = processor.image_token_id
        self.geometry = geometry
        self.rope_index = rope_index

    def __call__(self, instructions: Sequence[str], *, num_cameras: int, device: torch.device) -> Prompts:
        """Prompts for `instructions`, in their order.

        Raises:
            ValueError: If an instruction is empty, or the chat template has no place for image or text.
        """
        prompts, positions = self._batched(instructions, num_cameras=num_cameras, device=device)
        position_ids = torch.stack(positions.unbind(1))  # b 3 l -> 3 b l, the order that transformers expects
        return Prompts(
            input_ids=prompts.input_ids,
            mask=prompts.mask,
            is_padded=prompts.is_padded,
            position_ids=position_ids,
            next_position=position_ids.amax(dim=(0, 2)) + 1,
        )

    def _expand(self, text: str) -> list[int]:
        ids = token_ids(self.tokenizer, text)
        return [t for token in ids for t in [token] * (self.geometry.tokens_per_image if token == self.image_id else 1)]

    def _rows(self, ids: Int[Tensor, "1 l"], num_cameras: int) -> Int[Tensor, "g l"]:
        positions, _ = self.rope_index(
            ids,
            mm_token_type_ids=(ids == self.image_id).int(),
            image_grid_thw=self.geometry.grid(num_cameras),
        )
        return torch.cat([super()._rows(ids, num_cameras), positions[:, 0]])
