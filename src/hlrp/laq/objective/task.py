"""The training step of the latent action quantizer (stage 1), as a Lightning module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from hlrp.laq.batch import ClipBatch
from hlrp.laq.model import LatentActionQuantizer, Reconstruction
from hlrp.laq.objective.code_fit import CodeFit, fit_codes
from hlrp.laq.objective.config import LAQTrainingConfig
from hlrp.laq.objective.losses import coarse_loss, feature_loss, labelled_mean_square, reconstruction_loss
from hlrp.laq.objective.sketch import ChangeSketch
from hlrp.laq.objective.views import altered_view
from hlrp.laq.quantizers.kmeans import WhitenedKMeans
from hlrp.training.optimization import lightning_optimizers


class LAQTask(pl.LightningModule):
    """Stage 1: train a quantizer to predict the change to the next frame from a frame and the codes of the transition.

    Args:
        model: Quantizer to train.
        config: Optimizer, loss weights and augmentation.
        frozen: Networks that compute the feature and flow targets, from `frozen_targets`; not saved in checkpoints.
        code_fit: When and on which clips codes are fitted; None for a quantizer that learns its codes at every step.
    """

    def __init__(
        self,
        model: LatentActionQuantizer,
        config: LAQTrainingConfig,
        frozen: nn.ModuleDict | None = None,
        code_fit: CodeFit | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self._code_fit = code_fit
        self.sketch = ChangeSketch(model.config) if config.losses.sketch else None
        self._encoder_is_new = False
        self._frozen = (frozen or nn.ModuleDict(),)  # in a tuple: neither saved with the model nor counted as its part

    def on_fit_start(self) -> None:
        """Move the frozen networks to the device of the model, since Lightning does not know them."""
        self._frozen[0].to(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a resumed run has not passed the step at which its codes are due.

        Raises:
            ValueError: If it has, so that codes would be fitted too late or never.
        """
        step, fitted = checkpoint["global_step"], checkpoint["state_dict"].get("model.quantizer.fitted")
        if self._code_fit and fitted is not None and not fitted and step > self._code_fit.step:
            raise ValueError(
                f"the run to resume is at step {step} already and has no fitted codes, which are due at step "
                f"{self._code_fit.step} of a run of so few steps; resume it with more steps"
            )

    def on_train_start(self) -> None:
        """Discard codes that were fitted before the step at which they are due: a resumed run may have more steps."""
        quantizer = self.model.quantizer
        if self._code_fit and isinstance(quantizer, WhitenedKMeans) and self.global_step < self._code_fit.step:
            quantizer.forget_fit()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Remove gradients of parameters without influence on the loss: AdamW would move them even at gradient 0."""
        if self.model.quantizer.is_final:
            for parameter in self._unused():
                parameter.grad = None

    def replaced_values(self) -> dict[str, Bool[Tensor, "..."]]:
        """Masks of the encoder's weights once codes were fitted to them, so that weight averaging keeps these weights;
        see `hlrp.training.callbacks.ReplacesValues`."""
        is_new, self._encoder_is_new = self._encoder_is_new, False
        if not is_new:
            return {}
        return {
            f"model.encoder.{name}": torch.ones_like(value).bool()
            for name, value in self.model.encoder.named_parameters()
        }

    def _unused(self) -> Iterator[nn.Parameter]:
        """Parameters that have no influence on the loss once the quantizer is final."""
        for part in (self.model.encoder, self.model.quantizer, self.sketch):
            if part is not None:
                yield from part.parameters()

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch of clips."""
        self._fit_codes_when_due()
        pixels = self.model.to_pixels(batch.frames)
        result = self.model(pixels, altered_view(pixels, batch.views, self.config.views))
        losses = self.losses(result, pixels[:, :-1], pixels[:, 1:], batch)
        loss = torch.stack(list(losses.values())).sum()
        if self.model.quantizer.is_final and isinstance(self.trainer.strategy, DDPStrategy):
            # DDP waits for a gradient of every parameter.
            loss = loss + 0 * torch.stack([parameter.sum() for parameter in self._unused()]).sum()
        values = {"loss": loss, **losses}
        if result.frames is not None:
            error, copied = (frames - pixels[:, 1:] for frames in (result.frames.detach(), pixels[:, :-1]))
            values["copy_gain"] = 1 - error.square().sum() / copied.square().sum().clamp_min(1e-6)
        self.log_dict({f"train/{name}": value for name, value in values.items()}, prog_bar=True, batch_size=len(batch))
        return loss

    def _fit_codes_when_due(self) -> None:
        """Fit the codes if their step has come; the encoder is frozen from then on.

        This is a part of the training step, since the weights of a sharded encoder are there only within it.
        """
        quantizer, due = self.model.quantizer, self._code_fit
        if due and isinstance(quantizer, WhitenedKMeans) and not quantizer.is_final and self.global_step >= due.step:
            fit = torch.compiler.disable()(fit_codes)
            fit(self.model, due.clips(), self.config.views, to_actions=due.to_actions)
            self._encoder_is_new = True

    def losses(
        self,
        result: Reconstruction,
        before: Float[Tensor, "b n m c h w"],
        after: Float[Tensor, "b n m c h w"],
        batch: ClipBatch,
    ) -> dict[str, Float[Tensor, ""]]:
        """Every weighted term of the loss, by name; their sum is the loss.

        Args:
            result: Output of the model for `batch`.
            before: Frames 0 … t-2, float32 in [0, 1].
            after: Frames 1 … t-1: the next frame of each frame in `before`.
            batch: Batch with the actions of the labelled clips.
        """
        config, change, frozen = self.config, result.change, self._frozen[0]
        losses = {"quantizer": result.quantizer_loss}
        if result.frames is not None:
            losses["reconstruction"] = config.losses.pixels * reconstruction_loss(
                result.frames, before, after, motion_strength=config.motion_strength
            )
            losses["coarse"] = config.losses.coarse * coarse_loss(
                result.frames, before, after, motion_strength=config.motion_strength
            )
        if self.sketch is not None:
            # The encoder does not learn from it any more once codes are final. A term that is left out would be logged
            # with its last value from then on.
            is_off = self.model.quantizer.is_final
            error = result.vectors.new_zeros(()) if is_off else self.sketch(result.vectors, after - before)
            losses["sketch"] = config.losses.sketch * error
        if change.features is not None:
            losses["features"] = config.losses.features * feature_loss(
                change.features, frozen["features"](before, after), motion_strength=config.motion_strength
            )
        if change.flow is not None:
            losses["flow"] = config.losses.flow * (change.flow - frozen["flow"](before, after)).square().mean()
        if result.actions is not None:
            losses["actions"] = config.losses.actions * labelled_mean_square(
                result.actions, batch.actions, batch.labelled, labelled_per_process(batch.labelled)
            )
        return losses

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW with warmup and cosine, over the whole run or, if codes are fitted, before and after that."""
        total = int(self.trainer.estimated_stepping_batches)
        restart = None if self._code_fit is None else self._code_fit.step
        return lightning_optimizers(self, self.config.optimizer, total_steps=total, restart_at=restart)


def labelled_per_process(labelled: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Number of labelled clips in the global batch, divided by the number of processes.

    Processes hold different numbers of labelled clips. DDP averages gradients over processes; if each process divides
    its sum over labelled clips by this number, that average is the mean over all labelled clips.
    """
    count = labelled.sum().float()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count
