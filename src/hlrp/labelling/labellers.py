"""What labels a batch of frames: a quantizer that encodes clips, or a foundation model that sees one frame of each.

Shapes: m cameras, h x w pixels.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Int, UInt8
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.data.dataset import task_sentences
from hlrp.foundation.backends import FoundationBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.predictions import device_of
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions


@runtime_checkable
class Labeller(Protocol):
    """A model that gives frames their labels."""

    def deltas(self, fps: float) -> list[int]:
        """Frames that the model sees to label frame t, as offsets in frames from t, in a source of `fps` Hz."""
        ...

    def label(self, clips: UInt8[Tensor, "b t m c h w"], index: Int[Tensor, " b"]) -> LatentActions:
        """Label a batch.

        Args:
            clips: Frames that the model sees, uint8 RGB in [0, 255].
            index: Absolute index of frame t.

        Returns:
            Labels on the CPU, with one axis of codes.
        """
        ...


class LAQLabeller:
    """Labels of a quantizer, which sees the whole clip."""

    def __init__(self, model: LatentActionQuantizer) -> None:
        self._model = model
        self._device = next(model.parameters()).device

    def deltas(self, fps: float) -> list[int]:
        """Frames of a clip."""
        return self._model.spec.frame_deltas(fps)

    def label(self, clips: UInt8[Tensor, "b t m c h w"], index: Int[Tensor, " b"]) -> LatentActions:
        """Encode the clips."""
        return self._model.encode(clips.to(self._device)).as_labels().to("cpu")


class VLALabeller:
    """Labels that a foundation model predicts from frame t and the instruction.

    Args:
        backend: The foundation model.
        quantizer: The LAQ whose codes it predicts; its code vectors are the vectors of a label, unless the foundation
            model predicts vectors too.
        instructions: Instruction of every frame.
    """

    def __init__(
        self, backend: FoundationBackend, quantizer: LatentActionQuantizer, instructions: Instructions
    ) -> None:
        self._backend = backend
        self._quantizer = quantizer
        self._instructions = instructions

    def deltas(self, fps: float) -> list[int]:
        """Frame t alone."""
        return [0]

    def label(self, clips: UInt8[Tensor, "b t m c h w"], index: Int[Tensor, " b"]) -> LatentActions:
        """Predict the codes, decoded as at inference."""
        batch = FoundationBatch(clips[:, 0].float() / 255, self._instructions.at(index))
        found = self._backend.predict(batch.to(device_of(self._backend)))
        codes, vectors = found.codes.cpu(), found.vectors
        if vectors is None:
            by_transition = rearrange(codes, "b (n s) -> b n s", s=self._quantizer.spec.code_seq_len)
            vectors = rearrange(self._lookup(by_transition), "b n s v -> b (n s) v")
        return LatentActions(codes, vectors.detach().float().cpu(), torch.ones(len(codes), dtype=torch.bool))

    @torch.no_grad()
    def _lookup(self, codes: Int[Tensor, "b n s"]) -> Tensor:
        return self._quantizer.lookup(codes.to(next(self._quantizer.parameters()).device))


class Instructions:
    """Instructions of the frames of a dataset, read by frame index from its rows on disk."""

    def __init__(self, dataset: LeRobotDataset) -> None:
        self._sentences = task_sentences(dataset)
        self._tasks = dataset.hf_dataset.data.column("task_index")

    def at(self, index: Int[Tensor, " b"]) -> list[str]:
        """Instructions of the frames `index`."""
        return [self._sentences[int(task)] for task in self._tasks.take(index.numpy()).to_pylist()]
