"""Decode an answer of fixed form: s codes after a forced start token, each one of k.

The prompt and the start token are prefilled together; then s-1 single-token steps follow on the key-value
cache, and only the k rows of the output head that can win are evaluated. Positions count from the prompt's
end, so action tokens written by a user change nothing.

Shapes: b batch, l prompt tokens, s codes, k codebook entries, d width, a answer tokens, t = l+a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, Qwen3VLModel

from hlrp.foundation.prompt_inputs import Prompts


@dataclass(frozen=True)
class DecodedCodes:
    """Decoded codes with the prompt's hidden states."""

    codes: Int[Tensor, "b s"]
    log_probs: Float[Tensor, "b s"]
    prompt_hidden: Float[Tensor, "b l d"]


def with_answer(
    prompts: Prompts, answer: Int[Tensor, "b a"]
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "3 b t"], Bool[Tensor, "b t"] | None]:
    """Token ids, rotary positions and mask of prompts with `answer` appended; no mask without padding."""
    steps = torch.arange(answer.shape[1], device=answer.device)
    positions = (prompts.next_position[:, None] + steps).expand(3, -1, -1)
    mask = F.pad(prompts.mask, (0, answer.shape[1]), value=True) if prompts.is_padded else None
    return torch.cat([prompts.input_ids, answer], 1), torch.cat([prompts.position_ids, positions], 2), mask


def decode_codes(
    model: Qwen3VLModel,
    prompts: Prompts,
    vision: dict[str, Tensor],
    *,
    start_id: int,
    code_ids: Int[Tensor, " k"],
    code_rows: Float[Tensor, "k d"],
    num_codes: int,
    temperature: float | None = None,
    generator: torch.Generator | None = None,
) -> DecodedCodes:
    """Decode `num_codes` codes greedily, or by sampling at `temperature`.

    Args:
        model: The model under the output head, in evaluation mode.
        prompts: Tokenized prompts.
        vision: `pixel_values` and `image_grid_thw` of the prompts' images.
        start_id: Token that opens an answer.
        code_ids: Token of each code.
        code_rows: Output-head row of each code.
        num_codes: Slots s to fill.
        temperature: None takes the best code; a positive number samples.
        generator: Source of randomness for sampling.
    """
    if temperature is not None and temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}; use None for the most likely codes")
    length = prompts.input_ids.shape[1]
    start = torch.full_like(prompts.input_ids[:, :1], start_id)
    ids, positions, mask = with_answer(prompts, start)
    cache = DynamicCache(config=model.config.get_text_config())
    hidden = model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        **vision,
    ).last_hidden_state
    prompt_hidden = hidden[:, :length]

    codes, log_probs = [], []
    for slot in range(num_codes):
        if slot > 0:
            mask = None if mask is None else F.pad(mask, (0, 1), value=True)
            hidden = model(
                input_ids=code_ids[codes[-1]],
                position_ids=(prompts.next_position[:, None] + slot).expand(3, -1, -1),
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        log_p = F.linear(hidden[:, -1], code_rows).float().log_softmax(-1)
        if temperature is None:
            code = log_p.argmax(-1, keepdim=True)
        else:
            code = torch.multinomial((log_p / temperature).softmax(-1), 1, generator=generator)
        codes.append(code)
        log_probs.append(log_p.gather(1, code))
    return DecodedCodes(torch.cat(codes, 1), torch.cat(log_probs, 1), prompt_hidden)
