"""Codes by residual k-means of all slots together, in directions that altered views of a clip do not change.

The encoder represents the largest motion in few directions of large variance. Other information about the action is in
directions of small variance, which a trained rounding neglects. Here the vectors of a transition are first whitened by
their noise: the difference between two altered views of the same clip. A direction then counts by its variance relative
to this noise (as in linear discriminant analysis, with clips as classes). The first code is the nearest of k centres,
the second the nearest centre to the residual, and so on (residual vector quantization, Juang and Gray, 1982).

If actions of enough clips are known, codes can be fitted in the directions that predict these actions instead
(reduced-rank regression, Izenman, 1975): they then leave out what moves without the robot.

Shapes: i clips, z numbers of all slots together, s*v; g action values of a clip.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.laq.k_means import k_means
from hlrp.laq.quantizers.base import Quantized, Quantizer
from hlrp.laq.quantizers.fsq import FiniteScalarQuantizer
from hlrp.latents import LatentSpec
from hlrp.runtime.checks import require_number
from hlrp.runtime.size_limits import MOST_CODEBOOK_NUMBERS
from hlrp.training.ranks import from_first_rank

_LEAST_NOISE = 1e-4
"""Noise that is added in every direction, as a share of the mean noise: a direction almost without noise and variance
would count as much as one that describes the action."""
_LEAST_VARIANCE = 1e-6
"""Noise that is added in every direction, as a share of the mean variance, for vectors without any noise."""
_LEAST_SHARE = 1e-6
"""Least variance of a direction that may predict actions, as a share of the largest."""
_RIDGE = 0.01
"""Penalty on the coefficients that predict actions from vectors of variance 1, relative to the number of clips."""


class WhitenedKMeans(Quantizer):
    """Until `fit`, finite scalar quantization, with which the encoder learns. Afterwards residual k-means, whose
    centres are fixed, so that the encoder must not change any more.

    Raises:
        ValueError: If the slots together are too wide for a matrix of all their directions.
    """

    fitted: Tensor
    """Whether `fit` was called."""
    mean: Tensor
    """Mean of the vectors, (z,)."""
    directions: Tensor
    """Whitened directions, (z, v)."""
    centres: Tensor
    """Code vectors of every slot, (s, k, v)."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        width = spec.code_seq_len * spec.code_dim
        require_number("(code_seq_len * code_dim)² of kmeans", width**2, limit=MOST_CODEBOOK_NUMBERS)
        self.until_fitted = FiniteScalarQuantizer(spec)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(width, spec.code_dim))
        self.register_buffer("centres", torch.zeros(spec.code_seq_len, spec.codebook_size, spec.code_dim))
        self._is_final = False  # the value of `fitted`; reading it from a GPU at every step would wait for the GPU
        self._is_new = False

    @property
    def is_final(self) -> bool:
        return self._is_final

    def _load_from_state_dict(self, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, *args, **kwargs)
        self._is_final = bool(self.fitted)

    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        if not self.is_final:
            return self.until_fitted.quantize(latents)
        left = (rearrange(latents, "b s v -> b (s v)") - self.mean) @ self.directions
        vectors, ids = [], []
        for centres in self.centres:
            ids.append(_nearest(left, centres))
            vectors.append(centres[ids[-1]])
            left = left - vectors[-1]
        return Quantized(torch.stack(vectors, dim=1), torch.stack(ids, dim=1), latents.new_zeros(()))

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        if not self.is_final:
            return self.until_fitted.lookup(ids)
        return torch.stack([centres[ids[:, slot]] for slot, centres in enumerate(self.centres)], dim=1)

    @torch.no_grad()
    def fit(
        self,
        view: Float[Tensor, "i s v"],
        other_view: Float[Tensor, "i s v"],
        actions: Float[Tensor, "i g"] | None = None,
        labelled: Bool[Tensor, " i"] | None = None,
    ) -> None:
        """Find directions and centres, the same on every process.

        Args:
            view: Vectors of clips.
            other_view: Vectors of the same clips, altered in another way.
            actions: Standardized actions of the clips, to fit the codes to them; None: fit the codes to the video.
            labelled: Which clips have actions; given if `actions` are.
        """
        one, other = (rearrange(vectors, "i s v -> i (s v)").double().cpu() for vectors in (view, other_view))
        points = torch.cat([one, other])
        mean = points.mean(0)
        if actions is None:
            directions = discriminant_directions(points - mean, one - other)
        else:
            assert labelled is not None
            known = labelled.cpu()
            both = actions.double().cpu()[known].repeat(2, 1)
            directions = action_directions(points - mean, both, known.repeat(2))
        directions = directions[:, : self.directions.shape[1]]
        directions = F.pad(directions, (0, self.directions.shape[1] - directions.shape[1]))
        left = (points - mean) @ directions
        scale = left.square().mean().sqrt().clamp_min(1e-12)  # numbers of about 1, which suit the decoder
        left, directions = left / scale, directions / scale
        generator, centres = torch.Generator().manual_seed(0), []
        for _ in range(len(self.centres)):
            found = k_means(left, self.centres.shape[1], generator)
            left = left - found[_nearest(left, found)]
            centres.append(found)
        for target, value in (
            (self.mean, mean),
            (self.directions, directions),
            (self.centres, torch.stack(centres)),
        ):
            target.copy_(from_first_rank(value.to(target)))
        self._set_final(True)
        self._is_new = True

    def forget_fit(self) -> None:
        """Go back to the quantization before `fit`."""
        self._set_final(False)

    def _set_final(self, is_final: bool) -> None:
        self.fitted.fill_(is_final)
        self._is_final = is_final

    def replaced_values(self) -> dict[str, Bool[Tensor, "..."]]:
        """Masks of the values that `fit` has set since the last call, so that weight averaging leaves them out; see
        `hlrp.training.callbacks.ReplacesValues`."""
        is_new, self._is_new = self._is_new, False
        if not is_new:
            return {}
        return {name: torch.ones_like(getattr(self, name)).bool() for name in ("mean", "directions", "centres")}


def _nearest(points: Float[Tensor, "i v"], centres: Float[Tensor, "k v"]) -> Int[Tensor, " i"]:
    # Distances by matrix products are less exact, so that a point between two centres might change its code with the
    # other points of the batch.
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def discriminant_directions(centred: Float[Tensor, "i z"], differences: Float[Tensor, "j z"]) -> Float[Tensor, "z z"]:
    """Directions in which the noise has variance 1, by falling variance of `centred`.

    Args:
        centred: Points with mean 0.
        differences: Differences of two noisy observations of the same point: their variance is twice the noise's.
    """
    variance = centred.T @ centred / len(centred)
    noise = differences.T @ differences / (2 * len(differences))
    least = _LEAST_NOISE * noise.trace() + _LEAST_VARIANCE * variance.trace()
    noise = noise + (least / len(noise)).clamp_min(1e-12) * torch.eye(len(noise), dtype=noise.dtype)
    values, vectors = torch.linalg.eigh(noise)
    whitening = vectors / values.sqrt()
    _, rotation = torch.linalg.eigh(whitening.T @ variance @ whitening)
    return _turned((whitening @ rotation).flip(1))


def action_directions(
    centred: Float[Tensor, "i z"], actions: Float[Tensor, "j g"], labelled: Bool[Tensor, " i"]
) -> Float[Tensor, "z g"]:
    """Directions in which a linear map of the points predicts actions, by falling variance of the predicted actions.

    Args:
        centred: Points with mean 0.
        actions: Actions of the labelled points.
        labelled: Which points have actions.
    """
    variance = centred.T @ centred / len(centred)
    values, vectors = torch.linalg.eigh(variance)
    whitening = vectors / values.clamp_min((_LEAST_SHARE * values.max()).clamp_min(1e-12)).sqrt()
    inputs = (centred @ whitening)[labelled]
    gram = inputs.T @ inputs / len(inputs) + _RIDGE * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    predict = whitening @ torch.linalg.solve(gram, inputs.T @ (actions - actions.mean(0)) / len(inputs))
    _, rotation = torch.linalg.eigh(predict.T @ variance @ predict)
    return _turned((predict @ rotation).flip(1))


def _turned(directions: Float[Tensor, "z x"]) -> Float[Tensor, "z x"]:
    """The directions with their largest number positive: a direction may point either way, and small errors would turn
    it."""
    return directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
