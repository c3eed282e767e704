"""Turn instructions into the token ids and positions of a chat prompt, cached per instruction.

The prompt follows the processor's own chat template: system prompt, one image placeholder per camera, the
instruction, and the opening of the assistant's turn. The instruction is tokenized as plain text, so that no text of a
user can become an action token, an image placeholder or the end of a turn.

Shapes: l prompt tokens (padded on the left), u different instructions in a batch, g rows of the cached table of one
prompt: token ids, the mask (all ones), and rows that a subclass adds, such as positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import ProcessorMixin

from hlrp.foundation.batch import require_instructions
from hlrp.foundation.bounded_template import ANOTHER_TEMPLATE, bounded_template
from hlrp.foundation.processor_parts import token_ids, tokenizer_of
from hlrp.runtime.size_limits import LONGEST_TEMPLATE

_INSTRUCTION = "\ue000"  # a private-use character: marks the instruction's place in the rendered template
_MAX_CACHED = 50_000
"""Prompts in the cache before the cache is emptied, so that free-form instructions cannot fill the memory."""


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompts:
    """Tokenized prompts of a batch, padded on the left."""

    input_ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    """True on tokens of the prompt, False on padding."""
    is_padded: bool
    """Whether any prompt of the batch is padded; a Python bool, so that attention can skip the mask without a sync."""


class ChatTokenizer(ABC):
    """Chat tokenizer that caches each (instruction, number of cameras).

    A subclass expands the image placeholders of its model family.
    """

    def __init__(self, processor: ProcessorMixin, *, system_prompt: str) -> None:
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        pad = self.tokenizer.pad_token_id
        if not isinstance(pad, int):
            raise ValueError("the tokenizer has no padding token; use a chat model's tokenizer")
        self.pad_id = pad
        self.system_prompt = system_prompt
        self._surroundings: dict[int, tuple[list[int], list[int]]] = {}
        self._prompts: dict[tuple[str, int], Int[Tensor, "g l"]] = {}

    @abstractmethod
    def _expand(self, text: str) -> list[int]:
        """Token ids of a piece of the rendered template, with each image placeholder expanded to all its tokens."""

    def _rows(self, ids: Int[Tensor, "1 l"], num_cameras: int) -> Int[Tensor, "g l"]:
        """Cached table of one prompt: token ids, the mask (all ones), and further rows that a subclass adds."""
        return torch.cat([ids, torch.ones_like(ids)])

    def _batched(
        self, instructions: Sequence[str], *, num_cameras: int, device: torch.device
    ) -> tuple[TokenizedPrompts, Int[Tensor, "b further l"]]:
        """Prompts for `instructions`, in the given order, and the cached rows that follow ids and mask."""
        row_of = {text: row for row, text in enumerate(dict.fromkeys(instructions))}
        prompts = [self._prompt(text, num_cameras) for text in row_of]
        lengths = [prompt.shape[1] for prompt in prompts]
        longest = max(lengths)
        table = torch.stack([F.pad(p, (longest - p.shape[1], 0)) for p in prompts])  # u g l
        rows = torch.tensor([row_of[text] for text in instructions])
        batched = table[rows].to(device, non_blocking=True)  # ids, mask and positions in one transfer
        mask = batched[:, 1].bool()
        ids = torch.where(mask, batched[:, 0], self.pad_id)
        return TokenizedPrompts(input_ids=ids, mask=mask, is_padded=min(lengths) != longest), batched[:, 2:]

    def _prompt(self, instruction: str, num_cameras: int) -> Int[Tensor, "g l"]:
        key = (instruction, num_cameras)
        if key not in self._prompts:
            if len(self._prompts) >= _MAX_CACHED:
                self._prompts.clear()
            self._prompts[key] = self._tokenize(instruction, num_cameras)
        return self._prompts[key]

    def _tokenize(self, instruction: str, num_cameras: int) -> Int[Tensor, "g l"]:
        require_instructions([instruction])
        before, after = self._surrounding(num_cameras)
        text = token_ids(self.tokenizer, instruction, as_plain_text=True)
        return self._rows(torch.tensor([[*before, *text, *after]]), num_cameras)

    def _surrounding(self, num_cameras: int) -> tuple[list[int], list[int]]:
        """Token ids of the template before and after the instruction."""
        if num_cameras not in self._surroundings:
            self._surroundings[num_cameras] = self._render(num_cameras)
        return self._surroundings[num_cameras]

    def _render(self, num_cameras: int) -> tuple[list[int], list[int]]:
        content = [{"type": "image"}] * num_cameras + [{"type": "text", "text": _INSTRUCTION}]
        messages = [{"role": "user", "content": content}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        # The tokenizer renders the template: some processors would add video settings and then warn about them.
        template = self.processor.chat_template  # pyright: ignore[reportAttributeAccessIssue]
        with bounded_template():
            rendered = self.tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        if not isinstance(rendered, str) or len(rendered) > LONGEST_TEMPLATE:
            raise ValueError(
                f"the chat template makes no prompt of at most {LONGEST_TEMPLATE} characters; {ANOTHER_TEMPLATE}"
            )
        num_images = rendered.count(self.processor.image_token)  # pyright: ignore[reportAttributeAccessIssue]
        if rendered.count(_INSTRUCTION) != 1 or num_images != num_cameras:
            raise ValueError(
                f"the chat template must place the instruction and {num_cameras} images once each; {ANOTHER_TEMPLATE}"
            )
        before, _, after = rendered.partition(_INSTRUCTION)
        return self._expand(before), self._expand(after)
