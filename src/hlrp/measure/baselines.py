"""Reference points for the metrics of a quantizer: codes of the same size from an untrained model, from a model trained
on few actions, and from the true actions.

Shapes: g labelled clips, i clips for fitting, j held-out clips, z features, o chunk steps (h is the height of a frame
here).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.batch import unlabelled
from hlrp.laq.config import LAQConfig, small
from hlrp.laq.k_means import k_means
from hlrp.laq.lapa.config import LapaConfig
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.code_fit import fit_codes
from hlrp.laq.objective.config import LabellerConfig, ViewConfig
from hlrp.laq.quantizers.kmeans import WhitenedKMeans
from hlrp.latents import LatentActions, LatentSpec
from hlrp.measure.action_probe import Chunks, code_features, mean_and_scale, pooled_r2, probe_episodes, r2_interval
from hlrp.measure.clip_features import clip_features
from hlrp.measure.code_usage import code_usage
from hlrp.measure.laq_quality import LAQQuality, QualityClips, evaluating
from hlrp.runtime.progress import progress
from hlrp.runtime.tables import with_noun

_READ_TOGETHER = 256
"""Clips that are encoded at once."""


@dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """One row of the comparison: metrics that exist for every kind of latent. None if a metric does not exist."""

    name: str
    meaning: str
    """Explanation of the row for readers of the report."""
    probe_r2: float | None
    """R² of a linear probe of actions from one-hot codes; from code vectors for a quantizer without codes."""
    probe_r2_interval: tuple[float, float] | None
    perplexity: list[float] | None
    """`CodeUsage.perplexity` of each slot."""
    tuple_entropy_bits: float | None

    def to_dict(self) -> dict[str, object]:
        """The row as plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class LabelledClips:
    """Clips whose actions are known, the training data of the inverse-dynamics baseline."""

    frames: UInt8[Tensor, "g t m c h w"]
    actions: Float[Tensor, "g o a"]
    """Actions from the first to the last frame of each clip, in dataset units."""
    episodes: int
    """Number of episodes that the clips come from."""


def trainable_config(config: LAQConfig | LapaConfig) -> LAQConfig:
    """Architecture of the baselines: that of the quantizer itself, or, for a LAPA quantizer, which cannot be trained
    here, the preset `small` with the same codes and frame size."""
    if isinstance(config, LAQConfig):
        return config
    return replace(small(), spec=config.spec, image_size=config.image_size, patch_size=config.patch_size)


def baseline_rows(
    config: LAQConfig | LapaConfig,
    quality: LAQQuality,
    clips: QualityClips,
    labelled: LabelledClips,
    labeller: LabellerConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> list[BaselineRow]:
    """Rows of the comparison: the measured quantizer first, then all baselines with codes of the same size.

    Args:
        config: Architecture of the quantizer; see `trainable_config` for that of the baselines.
        quality: Metrics of the quantizer.
        clips: Clips on which the quantizer was measured; the baselines are measured on the same clips.
        labelled: Training data of the inverse-dynamics baseline.
        labeller: Training settings of the inverse-dynamics baseline.
        seed: Seed of first weights, training batches and k-means.
        device: Device on which models run.

    Raises:
        ValueError: If too few clips have known actions.
    """
    chunks = clips.chunks
    if chunks is None:
        raise ValueError(
            "baselines need the actions of 2 fitting clips and 1 held-out clip or more, and fewer clips have known "
            "actions; leave the baselines out"
        )
    torch.manual_seed(seed)
    built = trainable_config(config)
    architecture = "the same architecture" if built is config else "the LAQ preset small with codes of this size"
    untrained = random_laq(built, clips.fit, device=device)
    supervised = inverse_dynamics_labeller(built, labelled, labeller, device=device)
    found = BaselineRow(
        name="this LAQ",
        meaning="the quantizer of this report",
        probe_r2=quality.probe.probe_r2_quantized if quality.codes.perplexity is None else quality.probe.probe_r2,
        probe_r2_interval=quality.probe.probe_r2_interval,
        perplexity=quality.codes.perplexity,
        tuple_entropy_bits=quality.codes.tuple_entropy_bits,
    )
    return [
        found,
        model_row(
            "random LAQ",
            f"{architecture} with random weights: what codes show without training",
            untrained, clips, chunks,
        ),
        model_row(
            "inverse dynamics",
            f"{architecture}, trained on the actions of {with_noun(labelled.episodes, 'episode')} and on nothing else",
            supervised, clips, chunks,
        ),
        code_row(
            "oracle codes", "k-means of the true actions: about the best that codes of this size can reach",
            *oracle_codes(chunks, built.spec, seed=seed), chunks, built.spec.codebook_size,
        ),
    ]  # fmt: skip


def model_row(
    name: str, meaning: str, model: LatentActionQuantizer, clips: QualityClips, chunks: Chunks
) -> BaselineRow:
    """Row of the comparison for the codes of `model`."""
    with evaluating(model):
        fit, held_out = (clip_features(model, batches).latents for batches in (clips.fit, clips.held_out))
    return _row(name, meaning, fit, held_out, chunks, model.spec.codebook_size)


def code_row(
    name: str, meaning: str, fit: Int[Tensor, "i n s"], held_out: Int[Tensor, "j n s"], chunks: Chunks, size: int
) -> BaselineRow:
    """Row of the comparison for codes that come from no model; `size` is the codebook size k."""
    row = _row(name, meaning, LatentActions.of_codes(fit), LatentActions.of_codes(held_out), chunks, size)
    # Codes that come from actions mean nothing where these are not known.
    use = code_usage(held_out[chunks.held_out.isfinite().all(1)], size)
    return replace(row, perplexity=use.perplexity, tuple_entropy_bits=use.tuple_entropy_bits)


def _row(
    name: str, meaning: str, fit: LatentActions, held_out: LatentActions, chunks: Chunks, size: int
) -> BaselineRow:
    sums = probe_episodes(code_features(fit, size), code_features(held_out, size), chunks)
    use = None if held_out.codes is None else code_usage(held_out.codes, size)
    return BaselineRow(
        name=name,
        meaning=meaning,
        probe_r2=pooled_r2(sums),
        probe_r2_interval=r2_interval(sums),
        perplexity=use and use.perplexity,
        tuple_entropy_bits=use and use.tuple_entropy_bits,
    )


# ---- No learning ----


def random_laq(
    config: LAQConfig, batches: Iterable[UInt8[Tensor, "_ t m c h w"]], *, device: torch.device | str = "cpu"
) -> LatentActionQuantizer:
    """An untrained quantizer with random weights, in evaluation mode.

    Rounding needs the mean and standard deviation of its inputs, and a learned codebook needs first entries. Both come
    from one pass over `batches` in training mode, without a gradient step; codes of the kind `kmeans` are fitted.
    """
    model = LatentActionQuantizer(config).to(device).train()
    if isinstance(model.quantizer, WhitenedKMeans):
        return _with_fitted_codes(model, batches)
    with torch.no_grad():
        for clips in progress(batches, "random LAQ"):
            model(model.to_pixels(clips.to(device)))
    return model.eval()


def _with_fitted_codes(
    model: LatentActionQuantizer, batches: Iterable[UInt8[Tensor, "_ t m c h w"]]
) -> LatentActionQuantizer:
    """`model` in evaluation mode, with codes of the kind `kmeans` that are fitted to `batches`, as a training does."""
    drawn = (replace(batch, views=torch.rand(len(batch), 4) * 2 - 1) for batch in map(unlabelled, batches))
    fit_codes(model, drawn, ViewConfig())
    return model.eval()


# ---- Few actions, no reconstruction ----


def inverse_dynamics_labeller(
    config: LAQConfig, labelled: LabelledClips, training: LabellerConfig, *, device: torch.device | str = "cpu"
) -> LatentActionQuantizer:
    """Train encoder and quantizer to predict the actions of the labelled clips, through a linear head on the codes.

    This baseline learns from the labelled clips alone: a quantizer that learned from all video should beat it. Codes of
    the kind `kmeans` are fitted to these clips at the end. The decoder is not trained, so that its predictions mean
    nothing. The model is returned in evaluation mode.
    """
    actions = labelled.actions
    mean, scale, _ = mean_and_scale(actions)
    actions = (actions - mean) / scale
    targets = rearrange(actions, "g (n o) a -> g n (o a)", n=config.spec.num_transitions)
    # The smallest possible decoder, since its output is not used.
    config = replace(config, targets=("pixels",), feature_dim=0, decoder_layers=1, action_dim=targets.shape[-1])
    model = LatentActionQuantizer(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr)
    for _ in progress(range(training.steps), "training the inverse-dynamics baseline"):
        rows = torch.randint(len(targets), (training.batch_size,))
        result = model(model.to_pixels(labelled.frames[rows].to(device)))
        assert result.actions is not None, "the configuration above asks for an action head"
        loss = (result.actions - targets[rows].to(device)).square().mean() + result.quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if isinstance(model.quantizer, WhitenedKMeans):
        return _with_fitted_codes(model, labelled.frames.split(_READ_TOGETHER))
    return model.eval()


# ---- All actions, no pictures ----


def oracle_codes(chunks: Chunks, spec: LatentSpec, *, seed: int) -> tuple[Int[Tensor, "i n s"], Int[Tensor, "j n s"]]:
    """Codes of the true action chunks, by residual k-means that is fitted on the fitting clips.

    The first code is the nearest of k centres to the chunk, the second the nearest centre to the residual, and so on
    (residual vector quantization, Juang and Gray, 1982). The sum of the centres approximates the chunk, so that a
    linear probe of the one-hot codes reads it. This is close to the best R² for codes of this size, but no proven
    bound, since the search is greedy.

    Returns:
        Codes of the fitting clips and of the held-out clips.
    """
    generator = torch.Generator().manual_seed(seed)
    left_fit, left_test = chunks.fit.double(), chunks.held_out.double()
    known = left_fit.isfinite().all(1)  # chunks that are not known get an arbitrary code; probes leave them out
    fit, held_out = [], []
    for _ in range(spec.num_codes):
        centres = k_means(left_fit[known], spec.codebook_size, generator)
        nearest = [torch.cdist(left, centres).argmin(1) for left in (left_fit, left_test)]
        left_fit, left_test = left_fit - centres[nearest[0]], left_test - centres[nearest[1]]
        fit.append(nearest[0])
        held_out.append(nearest[1])
    by_slot = (torch.stack(codes, dim=1) for codes in (fit, held_out))
    fit_codes, held_out_codes = (rearrange(codes, "b (n s) -> b n s", s=spec.code_seq_len) for codes in by_slot)
    return fit_codes, held_out_codes
