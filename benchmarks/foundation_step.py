"""Time of a training step, compared with the bare forward and backward pass of the same model on prepared tensors.

The bare pass gets patches, token ids and labels. The training step starts from frames in memory and instructions as
text; it reads the batch, prepares the inputs, and copies the logged values to the CPU. Both are called in turn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.timing import interleaved
from hlrp.data.frames import CachedFrames
from hlrp.data.labelled_frames import FramePool, LabelledFrames, Observations, ShuffledBatches
from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.backends.qwen3vl.constrained_decode import with_answer
from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentActions, LatentSpec

BATCH, FRAMES, SIZE = 64, 2048, 64


def run(repeats: int) -> dict[str, float]:
    """Median seconds of the bare pass, of the step on a batch in memory, and of the step that also reads its batch."""
    torch.manual_seed(0)
    spec = LatentSpec()
    backend = QwenVLChatBackend.build(QwenVLChatConfig(image_size=(SIZE, SIZE), random_shift_px=0), spec).train()
    frames = torch.randint(0, 256, (FRAMES, 3, SIZE, SIZE), dtype=torch.uint8)
    instructions = [("Open the drawer", "Close the window")[i % 2] for i in range(FRAMES)]
    labelled = LabelledFrames(
        Observations([CachedFrames(frames)], instructions),
        LatentActions.of_codes(torch.randint(spec.codebook_size, (FRAMES, spec.num_codes))),
    )
    data = ShuffledBatches([FramePool(labelled, torch.arange(FRAMES))], batch_size=BATCH, num_batches=10_000, seed=0)
    batch = data[0]
    assert isinstance(batch, FoundationBatch)
    assert batch.labels is not None
    codes = batch.labels.require_codes()
    prompts, vision = backend._prompts(batch), backend._vision(batch)
    # The last code predicts nothing: it and the two tokens that end the answer are no inputs.
    ids, positions, mask = with_answer(prompts, backend.tokens.answer(codes)[:, :-3])
    length = prompts.input_ids.shape[1]
    steps = iter(range(10_000))

    def bare() -> None:
        hidden = backend.model.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, **vision
        ).last_hidden_state
        logits = F.linear(hidden[:, length:], backend.model.lm_head.weight[backend.code_ids])
        F.cross_entropy(logits.flatten(0, 1), codes.flatten()).backward()
        backend.zero_grad()

    def step(given: FoundationBatch) -> None:
        result = backend.loss(given)
        result.loss.backward()
        torch.stack([result.loss.detach(), result.accuracy.mean()]).tolist()  # the log line
        backend.zero_grad()

    def read_and_step() -> None:
        given = data[next(steps)]
        assert isinstance(given, FoundationBatch)
        step(given)

    seconds = interleaved(
        {"bare_s": bare, "step_s": lambda: step(batch), "with_reading_s": read_and_step}, repeats=repeats, device="cpu"
    )
    return {
        **seconds,
        "ratio": seconds["step_s"] / seconds["bare_s"],
        "ratio_with_reading": seconds["with_reading_s"] / seconds["bare_s"],
    }
