"""Interface of action experts: networks that predict a chunk of actions from an observation, codes and the state."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from hlrp.flow_matching import Guide


@dataclass(frozen=True, kw_only=True)
class ExpertSizes:
    """Sizes of an expert's inputs and of its output."""

    chunk_size: int
    """Steps of a chunk, h."""
    action_dim: int
    """Action dimensions a."""
    feature_dim: int
    """Width d of one token of the observation."""
    num_tokens: int | None
    """Tokens of an observation, l. None: the number varies."""
    num_codes: int = 0
    """Codes of one label, q; 0 if the expert gets no codes."""
    code_dim: int = 0
    """Width v of one code vector."""
    state_dim: int | None = None
    """State values r. None: the expert gets no state."""


@dataclass(frozen=True)
class ObservationTokens:
    """Features of an observation: one token per camera, or the tokens of a VLM."""

    features: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"] | None = None
    """False for padding. None: no token is padding."""


class ActionExpert(nn.Module, ABC):
    """Network that predicts chunks of normalized actions; all experts are listed in `hlrp.experts.registry`.

    Args:
        options: Object whose attributes are the expert's options, such as a policy's configuration.
        sizes: Sizes of inputs and outputs.
        num_inference_steps: Denoising steps at inference. None: the expert's own number.
    """

    supports_rtc: ClassVar[bool] = False
    """Whether the expert supports real-time chunking: whether `act` uses `guide`."""
    shaping_options: ClassVar[tuple[str, ...]] = ()
    """Names of the options that determine the shapes of the expert's weights."""
    block_names: ClassVar[tuple[str, ...]] = ()
    """Class names of the repeated blocks, which are compiled and sharded one by one."""

    @abstractmethod
    def __init__(self, options: Any, sizes: ExpertSizes, *, num_inference_steps: int | None) -> None:
        super().__init__()
        self.sizes = sizes

    @classmethod
    @abstractmethod
    def check(cls, options: Any, *, num_inference_steps: int | None, largest_action: float) -> None:
        """Check the options of this expert.

        Args:
            options: As for the constructor.
            num_inference_steps: As for the constructor.
            largest_action: Largest absolute value of the normalized actions; infinite if they have no limit, and 0 if
                it is unknown.

        Raises:
            ValueError: If an option is out of range, or the expert cannot predict such actions.
        """

    @abstractmethod
    def loss(
        self,
        actions: Float[Tensor, "b h a"],
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
        *,
        draws: int = 1,
    ) -> Float[Tensor, "b h"]:
        """Error of every chunk step, averaged over action dimensions and noise draws.

        Args:
            actions: Normalized actions to predict.
            observation: Features of the observation.
            codes: Vectors of the latent codes to follow; None if the expert gets no codes.
            state: Normalized state; None if the expert gets no state.
            draws: Noisy chunks per sample, for experts that learn to remove noise.
        """

    @abstractmethod
    def act(
        self,
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
        *,
        noise: Float[Tensor, "b h a"] | None = None,
        guide: Guide | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Predict chunks of normalized actions.

        Args:
            observation: Features of the observation.
            codes: As for `loss`.
            state: As for `loss`.
            noise: Noise to start from, standard normal; None samples it.
            guide: Correction of the velocity in every denoising step, for real-time chunking.
        """
