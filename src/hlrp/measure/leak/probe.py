"""Training loss and action of a policy for given items of its dataset, from the same random state every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.collate import lerobot_collate_fn
from lerobot.utils.random_utils import seeded_context
from torch import Tensor
from torch.utils.data import default_collate

from hlrp.latents import LatentActions

from .windows import Item

_ZERO_STD = 0.02
"""Standard deviation of the numbers that stand in for weights that are all 0."""
_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}

Label = Callable[[Mapping[str, Any]], LatentActions]
"""Function that gives the latent labels of a preprocessed batch."""


class Probe:
    """Runs a policy on items as lerobot-train does; the policy is as before after every run."""

    def __init__(
        self,
        policy: PreTrainedPolicy,
        preprocessor: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        cameras: Sequence[str],
        seed: int,
        has_language_columns: bool = False,
    ) -> None:
        """Keep the policy.

        Args:
            policy: Any policy of LeRobot.
            preprocessor: What turns a batch of the dataset into the policy's input.
            cameras: Keys of the dataset's cameras.
            seed: Seed of the random state that every run starts from.
            has_language_columns: Whether the dataset has columns that LeRobot's own collate function must handle.
        """
        self.policy = policy
        self._preprocessor = preprocessor
        self._cameras = list(cameras)
        self._seed = seed
        self._collate: Callable[[list[Any]], Any] = lerobot_collate_fn if has_language_columns else default_collate

    def batch(self, items: Sequence[Item]) -> dict[str, Any]:
        """The policy's input for `items`, made from copies."""
        copies = [{k: v.clone() if isinstance(v, Tensor) else v for k, v in item.items()} for item in items]
        batch = self._collate(copies)
        for key in self._cameras:
            if key in batch and batch[key].dtype == torch.uint8:
                batch[key] = batch[key].float() / 255
        return self._preprocessor(batch)

    def loss(self, items: Sequence[Item]) -> Tensor:
        """Training loss, in training mode and without gradients."""
        self.policy.train()
        with self._repeatable(), _autocast(self.policy.config):
            return self.policy.forward(self.batch(items))[0].detach().cpu()

    def action(self, items: Sequence[Item], call: str) -> Tensor:
        """What the method `call`, select_action or predict_action_chunk, returns at the start of an episode."""
        self.policy.eval()
        self.policy.reset()
        with self._repeatable():
            return getattr(self.policy, call)(self.batch(items)).detach().cpu()

    def labels(self, items: Sequence[Item]) -> LatentActions | None:
        """Latent labels that the policy's own source gives for `items`; None if it has no such source."""
        source = _label_source(self.policy)
        return None if source is None else source.label(self.batch(items))

    @contextmanager
    def labelled_by(self, label: Label | None) -> Iterator[None]:
        """Let the policy take its latent labels from `label`; None changes nothing."""
        source = _label_source(self.policy)
        if source is None or label is None:
            yield
            return
        source.label = label  # on the object, where it hides the method of its class
        try:
            yield
        finally:
            del source.label

    @contextmanager
    def without_zeros(self) -> Iterator[None]:
        """Give weights that are all 0 small random values: a fresh layer of zeros hides whatever flows into it."""
        zeros = [p for p in self.policy.parameters() if p.is_floating_point() and p.numel() and not p.any()]
        draw = torch.Generator().manual_seed(self._seed)
        try:
            with torch.no_grad():
                for weight in zeros:
                    weight.copy_(_ZERO_STD * torch.randn(weight.shape, generator=draw))
            yield
        finally:
            with torch.no_grad():
                for weight in zeros:
                    weight.zero_()

    @contextmanager
    def _repeatable(self) -> Iterator[None]:
        before = {name: value.clone() for name, value in self.policy.named_buffers()}
        try:
            with torch.no_grad(), seeded_context(self._seed):
                yield
        finally:
            for name, value in self.policy.named_buffers():  # running statistics of a batch norm move in training
                if name in before and before[name].shape == value.shape:
                    value.copy_(before[name])


def _label_source(policy: Any) -> Any | None:
    """Source of latent labels that a policy of this project keeps in `labels`; None for other policies."""
    source = getattr(policy, "labels", None)
    return source if callable(getattr(source, "label", None)) else None


def _autocast(config: Any) -> AbstractContextManager[object]:
    """The half precision in which lerobot-train computes the loss of a policy that asks for it in `dtype`."""
    dtype = _HALF.get(str(getattr(config, "dtype", None)))
    if dtype is None:
        return nullcontext()
    return torch.autocast(torch.device(config.device).type, dtype=dtype)
