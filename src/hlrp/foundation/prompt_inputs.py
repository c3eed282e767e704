"""From instructions to a chat prompt's token ids and rotary positions, cached per instruction.

The prompt is the processor's own chat template: system prompt, one image placeholder per camera, the
instruction, and the opening of the assistant's turn. The instruction is tokenized as plain text, so nothing a
user writes can become an action token, an image placeholder or the end of a turn.

Shapes: b batch, l prompt length (padded on the left), u different instructions in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import Qwen3VLProcessor

from hlrp.foundation.batch import require_instructions
from hlrp.foundation.image_inputs import ImageGeometry
from hlrp.foundation.processor_parts import token_ids, tokenizer_of

_INSTRUCTION = "\ue000"  # a private-use character: marks the instruction's place in the rendered template
_MAX_CACHED = 50_000

RopeIndex = Callable[..., tuple[Tensor, Tensor]]
"""`Qwen3VLModel.get_rope_index`."""


@dataclass(frozen=True)
class Prompts:
    """Tokenized prompts of a batch, padded on the left."""

    input_ids: Int[Tensor, "b l"]
    position_ids: Int[Tensor, "3 b l"]
    """Multimodal rotary positions: time, height, width."""
    next_position: Int[Tensor, " b"]
    """Rotary position of the first token after the prompt, on all three axes."""
    mask: Bool[Tensor, "b l"]
    """True where a token is, False on padding."""
    is_padded: bool
    """Known on the host: False lets attention skip the mask."""


class PromptTokenizer:
    """Tokenizes each (instruction, number of cameras) once."""

    def __init__(
        self,
        processor: Qwen3VLProcessor,
        geometry: ImageGeometry,
        rope_index: RopeIndex,
        *,
        system_prompt: str,
    ) -> None:
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        pad = self.tokenizer.pad_token_id
        if not isinstance(pad, int):
            raise ValueError("the tokenizer has no padding token; use a chat model's tokenizer")
        self.pad_id = pad
        self.geometry = geometry
        self.rope_index = rope_index
        self.system_prompt = system_prompt
        self._frames: dict[int, tuple[list[int], list[int]]] = {}
        self._prompts: dict[tuple[str, int], Int[Tensor, "5 l"]] = {}

    def __call__(self, instructions: Sequence[str], *, num_cameras: int, device: torch.device) -> Prompts:
        """Prompts for `instructions`, in their order.

        Raises:
            ValueError: If an instruction is empty, or the chat template has no place for image or text.
        """
        row_of = {text: row for row, text in enumerate(dict.fromkeys(instructions))}
        prompts = [self._prompt(text, num_cameras) for text in row_of]
        lengths = [prompt.shape[1] for prompt in prompts]
        longest = max(lengths)
        table = torch.stack([F.pad(p, (longest - p.shape[1], 0)) for p in prompts])  # u 5 l
        rows = torch.tensor([row_of[text] for text in instructions])
        # One transfer: ids, mask, time, height and width positions of every sample.
        ids, mask, *positions = table[rows].to(device, non_blocking=True).unbind(1)
        position_ids = torch.stack(positions)
        is_token = mask.bool()
        return Prompts(
            input_ids=torch.where(is_token, ids, self.pad_id),
            position_ids=position_ids,
            next_position=position_ids.amax(dim=(0, 2)) + 1,
            mask=is_token,
            is_padded=min(lengths) != longest,
        )

    def _prompt(self, instruction: str, num_cameras: int) -> Int[Tensor, "5 l"]:
        """Rows: token ids, ones (the mask), and the time, height and width positions."""
        key = (instruction, num_cameras)
        if key not in self._prompts:
            if len(self._prompts) >= _MAX_CACHED:
                self._prompts.clear()
            self._prompts[key] = self._tokenize(instruction, num_cameras)
        return self._prompts[key]

    def _tokenize(self, instruction: str, num_cameras: int) -> Int[Tensor, "5 l"]:
        require_instructions([instruction])
        before, after = self._frame(num_cameras)
        text = token_ids(self.tokenizer, instruction, as_plain_text=True)
        ids = torch.tensor([[*before, *text, *after]])
        positions, _ = self.rope_index(
            ids,
            mm_token_type_ids=(ids == self.processor.image_token_id).int(),
            image_grid_thw=self.geometry.grid(num_cameras),
        )
        return torch.cat([ids, torch.ones_like(ids), positions[:, 0]])

    def _frame(self, num_cameras: int) -> tuple[list[int], list[int]]:
        """Token ids before and after the instruction."""
        if num_cameras not in self._frames:
            self._frames[num_cameras] = self._render(num_cameras)
        return self._frames[num_cameras]

    def _render(self, num_cameras: int) -> tuple[list[int], list[int]]:
        content = [{"type": "image"}] * num_cameras + [{"type": "text", "text": _INSTRUCTION}]
        messages = [{"role": "user", "content": content}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        rendered = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, marker, after = rendered.partition(_INSTRUCTION)
        ids = [token_ids(self.tokenizer, part) for part in (before, after)]
        image = self.processor.image_token_id
        if not marker or sum(part.count(image) for part in ids) != num_cameras:
            raise ValueError(
                f"the chat template must place the instruction and {num_cameras} images once each; "
                "use the template of a Qwen-VL chat model"
            )
        widened = [
            [token for t in part for token in [t] * (self.geometry.tokens_per_image if t == image else 1)]
            for part in ids
        ]
        return widened[0], widened[1]
