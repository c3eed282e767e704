"""Prompts of a SmolVLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import SmolVLMProcessor

from hlrp.foundation.processor_parts import token_ids
from hlrp.foundation.prompt_inputs import ChatTokenizer, TokenizedPrompts


class SmolPromptTokenizer(ChatTokenizer):
    """Tokenizer of a SmolVLM's prompts, for images that are not split into crops."""

    processor: SmolVLMProcessor

    def __call__(self, instructions: Sequence[str], *, num_cameras: int, device: torch.device) -> TokenizedPrompts:
        """Prompts for `instructions`, in their order.

        Raises:
            ValueError: If an instruction is empty, or the chat template has no place for image or text.
        """
        return self._batched(instructions, num_cameras=num_cameras, device=device)[0]

    def _expand(self, text: str) -> list[int]:
        whole = [[0] * text.count(self.processor.image_token)]  # 0 rows and 0 columns of crops for every image
        (expanded,) = self.processor.expand_text_with_image_tokens([text], whole, whole)
        return token_ids(self.tokenizer, expanded)
