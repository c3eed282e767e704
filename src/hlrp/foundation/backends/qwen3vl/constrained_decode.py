"""Constrained decoding: a forced start token, then q codes, each chosen among k action tokens.

The prompt and the start token are prefilled together. Then q-1 single-token steps follow on the key-value cache, and
only the k rows of the output head that belong to action tokens are evaluated. Positions are counted from the end of
the prompt, so that action tokens in a user's text change nothing.

Shapes: l prompt tokens, p answer tokens that are given, z = l+p, g rows: x candidates of each of b samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, Qwen3VLModel

from hlrp.foundation.backends.choice import Choice
from hlrp.foundation.backends.qwen3vl.prompts import Prompts


@dataclass(frozen=True)
class Decoded:
    """Decoded codes, with the hidden states of the prompt."""

    codes: Int[Tensor, "g q"]
    log_probs: Float[Tensor, "g q"]
    """Log-probability of each decoded code among the k codes, at temperature 1."""
    prompt_hidden: Float[Tensor, "b l d"]


def with_answer(
    prompts: Prompts, answer: Int[Tensor, "b p"]
) -> tuple[Int[Tensor, "b z"], Int[Tensor, "3 b z"], Bool[Tensor, "b z"] | None]:
    """Token ids, rotary positions and mask of prompts with `answer` appended; the mask is None if nothing is padded."""
    steps = torch.arange(answer.shape[1], device=answer.device)
    positions = (prompts.next_position[:, None] + steps).expand(3, -1, -1)
    mask = F.pad(prompts.mask, (0, answer.shape[1]), value=True) if prompts.is_padded else None
    return torch.cat([prompts.input_ids, answer], 1), torch.cat([prompts.position_ids, positions], 2), mask


class ConstrainedDecoder:
    """State of decoding: the constructor runs the model over the prompt, and each `step` appends one code.

    Args:
        model: Qwen3-VL without its output head, in evaluation mode.
        prompts: Tokenized prompts.
        vision: `pixel_values` and `image_grid_thw` of the prompts' images.
        start_id: Id of the token that opens an answer.
        code_ids: Token id of each code.
        code_rows: Row of the output head for each code.
    """

    def __init__(
        self,
        model: Qwen3VLModel,
        prompts: Prompts,
        vision: dict[str, Tensor],
        *,
        start_id: int,
        code_ids: Int[Tensor, " k"],
        code_rows: Float[Tensor, "k d"],
    ) -> None:
        self.model = model
        self.code_ids = code_ids
        self.code_rows = code_rows
        ids, positions, self.mask = with_answer(prompts, torch.full_like(prompts.input_ids[:, :1], start_id))
        self.cache = DynamicCache(config=model.config.get_text_config())
        hidden = model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **vision,
        ).last_hidden_state
        self.prompt_hidden: Float[Tensor, "b l d"] = hidden[:, :-1]
        self.log_p: Float[Tensor, "g k"] = self._log_p(hidden)
        """Log-probabilities of the next code, after all codes so far."""
        self.position = prompts.next_position

    def keep(self, rows: Int[Tensor, " g"]) -> None:
        """Continue with these rows of the state, in this order; a row may be repeated."""
        self.cache.reorder_cache(rows)  # pyright: ignore[reportArgumentType]
        self.log_p, self.position = self.log_p[rows], self.position[rows]
        self.mask = None if self.mask is None else self.mask[rows]

    def step(self, codes: Int[Tensor, "g 1"]) -> None:
        """Append one code to every row and compute the log-probabilities of the next one."""
        self.position = self.position + 1
        self.mask = None if self.mask is None else F.pad(self.mask, (0, 1), value=True)
        hidden = self.model(
            input_ids=self.code_ids[codes],
            position_ids=self.position[:, None].expand(3, -1, -1),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.log_p = self._log_p(hidden)

    def _log_p(self, hidden: Float[Tensor, "g p d"]) -> Float[Tensor, "g k"]:
        return F.linear(hidden[:, -1], self.code_rows).float().log_softmax(-1)


def decode_codes(decoder: ConstrainedDecoder, choice: Choice, *, num_codes: int, num_samples: int = 1) -> Decoded:
    """Decode `num_codes` codes, `num_samples` times for each prompt, in one batch of b * num_samples rows."""
    if num_samples > 1:
        rows = torch.arange(len(decoder.log_p), device=decoder.log_p.device)
        decoder.keep(rows.repeat_interleave(num_samples))
    codes, log_probs = [], []
    for slot in range(num_codes):
        if slot > 0:
            decoder.step(codes[-1])
        codes.append(choice.pick(decoder.log_p))
        log_probs.append(decoder.log_p.gather(1, codes[-1]))
    return Decoded(torch.cat(codes, 1), torch.cat(log_probs, 1), decoder.prompt_hidden)


def beam_search(decoder: ConstrainedDecoder, *, num_codes: int, beams: int) -> Decoded:
    """Beam search for the most likely answers, best first; the result has b * min(beams, k^q) rows."""
    b, k = decoder.log_p.shape
    sample = torch.arange(b, device=decoder.log_p.device)[:, None]
    codes = decoder.code_ids.new_zeros(b, 0)
    log_probs = decoder.log_p.new_zeros(b, 0)
    for slot in range(num_codes):
        if slot > 0:
            decoder.step(codes[:, -1:])
        total = rearrange(log_probs.sum(1, keepdim=True) + decoder.log_p, "(b x) k -> b (x k)", b=b)
        best = total.topk(min(beams, total.shape[1]), dim=1).indices  # index = beam * k + code
        rows = (sample * (len(codes) // b) + best // k).flatten()
        code = (best % k).reshape(-1, 1)
        log_probs = torch.cat([log_probs[rows], decoder.log_p[rows].gather(1, code)], 1)
        codes = torch.cat([codes[rows], code], 1)
        if slot + 1 < num_codes:
            decoder.keep(rows)
    return Decoded(codes, log_probs, decoder.prompt_hidden)
