"""Time and results of decoding codes, compared with one prefill and with transformers' constrained `generate`.

Shapes: b batch, q codes of one label, l tokens.
"""

from __future__ import annotations

import os
import random
import re
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from benchmarks.timing import interleaved
from hlrp.commands.running import choose_device
from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.backends.embedded import EmbeddedSize
from hlrp.foundation.backends.qwen3vl.action_tokens import add_action_tokens
from hlrp.foundation.backends.qwen3vl.embedded_model import tiny_processor, tiny_qwen3vl_config
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.processor_parts import tokenizer_of
from hlrp.latents import LatentSpec

VOCABULARY = 151_936
"""Size of Qwen3-VL's vocabulary."""
BATCH, IMAGE = 4, 224
_WORDS = [
    *(
        "open",
        "close",
        "the",
        "a",
        "drawer",
        "window",
        "door",
        "button",
        "push",
        "pull",
        "pick",
        "place",
        "red",
        "blue",
    ),
    *("<ACTION>", "<ACT_3>", "</ACTION>", "<|im_end|>", "<|image_pad|>", "slowly", "3", "times", "übermütig", "机器人"),
]
"""Words of random instructions. Some spell special tokens, which must count as plain text in an instruction."""


def run(*, device: str | None, repeats: int, prompts: int) -> dict[str, Any]:
    """Time a Qwen3-VL of width 512 with 8 layers, and compare the answers of both decoders on `prompts` prompts.

    4 % of the prompts are compared on this model, the others on the smaller embedded one, which is faster.
    """
    device = choose_device(device)
    torch.set_num_threads(os.cpu_count() or 1)
    backend = random_qwen().to(device).eval()
    batch = random_batch(BATCH, IMAGE, seed=0, tokens=_tokens_for(backend, 80)).to(device)
    length = backend._prompts(batch).input_ids.shape[1]
    with torch.no_grad():
        seconds = interleaved(
            {
                "prefill": lambda: prefill(backend, batch),
                "generate": lambda: stock_generate(backend, batch),
                "ours": lambda: backend.predict(batch),
            },
            repeats=repeats,
            device=device,
        )
    large = identical(backend, prompts // 25, IMAGE, device)
    small = scaled(QwenVLChatBackend.build(QwenVLChatConfig(), LatentSpec())).to(device).eval()
    same = identical(small, prompts - prompts // 25, 64, device)
    return {
        "device": device,
        "prompt_tokens": length,
        "parameters": sum(p.numel() for p in backend.parameters()),
        **{f"{name}_s": value for name, value in seconds.items()},
        "ours_over_prefill": seconds["ours"] / seconds["prefill"],
        "generate_over_ours": seconds["generate"] / seconds["ours"],
        "identical": large + same,
        "prompts": prompts,
    }


def grammar(total: int) -> dict[str, int]:
    """Sample answers of models with random weights to random prompts, and count those that parse as valid answers."""
    valid = 0
    size = 100
    for number in range(total // size):
        torch.manual_seed(number)
        spec = LatentSpec(codebook_size=2 + number % 15, code_seq_len=1 + number % 7)
        backend = scaled(QwenVLChatBackend.build(QwenVLChatConfig(embedded_size="debug", image_size=(32, 32)), spec))
        batch = random_batch(size, 32, seed=number)
        codes = backend.eval().predict(batch, temperature=1.0).codes
        answers = tokenizer_of(backend.processor).batch_decode(backend.tokens.answer(codes))
        form = re.compile(rf"<ACTION>(\s*<ACT_(\d+)>){{{spec.num_codes}}}\s*</ACTION>\s*<\|im_end\|>")
        for answer, row in zip(answers, codes.tolist(), strict=True):
            named = [int(code) for code in re.findall(r"<ACT_(\d+)>", answer)]
            valid += bool(form.fullmatch(answer)) and named == row and max(row) < spec.codebook_size
    return {"valid": valid, "total": total // size * size}


MIDDLE = EmbeddedSize(
    patch_size=16, vision_width=256, vision_depth=4, vision_heads=4, text_width=512, text_depth=8, text_heads=8,
    mlp_ratio=3,
)  # fmt: skip
"""A Qwen3-VL of 109 million parameters, most of them in the table of Qwen's vocabulary."""


def random_qwen(size: EmbeddedSize = MIDDLE, *, dtype: torch.dtype = torch.float32) -> QwenVLChatBackend:
    """Build a Qwen3-VL of `size` with Qwen's vocabulary and random weights, which needs no download."""
    torch.manual_seed(0)
    config = QwenVLChatConfig(image_size=(IMAGE, IMAGE))
    spec = LatentSpec()
    processor = tiny_processor(size, config.image_size)
    add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
    architecture = tiny_qwen3vl_config(size, processor, config.image_size)
    architecture.get_text_config().vocab_size = VOCABULARY
    model = Qwen3VLForConditionalGeneration._from_config(architecture, dtype=dtype)
    return QwenVLChatBackend(config, spec, model, processor)


@torch.no_grad()
def scaled(backend: QwenVLChatBackend) -> QwenVLChatBackend:
    """Multiply all weight matrices by 4, so that a model with random weights gives different answers to prompts."""
    for parameter in backend.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)
    return backend


def random_batch(size: int, pixels: int, *, seed: int, tokens: int | None = None) -> FoundationBatch:
    """Return random images with random words as instructions, or with `tokens` equal words if given."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(1, 12))) for _ in range(size)]
    if tokens is not None:
        texts = [" open" * tokens] * size
    images = torch.rand(size, 1, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))
    return FoundationBatch(images, texts)


def _tokens_for(backend: QwenVLChatBackend, length: int) -> int:
    """Return the number of words for which a prompt has `length` tokens."""
    one = backend._prompts(random_batch(1, IMAGE, seed=0, tokens=1)).input_ids.shape[1]
    return max(length - one + 1, 1)


def prefill(backend: QwenVLChatBackend, batch: FoundationBatch) -> Tensor:
    """Run one forward pass over the prompt, with a key-value cache and without the output head."""
    prompts = backend._prompts(batch)
    return backend.model.model(
        input_ids=prompts.input_ids,
        position_ids=prompts.position_ids,
        attention_mask=prompts.mask if prompts.is_padded else None,
        use_cache=True,
        **backend._vision(batch),
    ).last_hidden_state


def stock_generate(backend: QwenVLChatBackend, batch: FoundationBatch) -> Int[Tensor, "b q"]:
    """Decode codes with transformers' `generate`; each position after the prompt allows only valid tokens."""
    prompts, tokens = backend._prompts(batch), backend.tokens
    length = prompts.input_ids.shape[1]
    form = [[tokens.start], *[list(tokens.codes)] * backend.spec.num_codes, [tokens.end], [tokens.eos]]

    def allowed(_: int, ids: Tensor) -> list[int]:
        return form[min(len(ids) - length, len(form) - 1)]

    generated: Int[Tensor, "b l"] = backend.model.generate(  # pyright: ignore[reportAttributeAccessIssue]
        input_ids=prompts.input_ids,
        attention_mask=prompts.mask.long(),
        mm_token_type_ids=(prompts.input_ids == backend.processor.image_token_id).int(),
        **backend._vision(batch),
        max_new_tokens=backend.spec.num_codes + 3,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        eos_token_id=tokens.eos,
        pad_token_id=tokenizer_of(backend.processor).pad_token_id,
    )
    answer = generated[:, length + 1 : length + 1 + backend.spec.num_codes]
    return (answer[..., None] == backend.code_ids).int().argmax(-1)


def identical(backend: QwenVLChatBackend, prompts: int, pixels: int, device: str) -> int:
    """Count the prompts for which both decoders give the same codes."""
    same = 0
    with torch.no_grad():
        for number in range(prompts // BATCH):
            batch = random_batch(BATCH, pixels, seed=1000 + number).to(device)
            same += int((stock_generate(backend, batch) == backend.predict(batch).codes).all(1).sum())
    return same
