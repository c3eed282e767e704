"""Configuration of `hlrp_vla`: `hlrp_vla_direct` with Cosmos-Reason2-2B and chunks of one action."""

from dataclasses import dataclass
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

from hlrp.runtime.checks import raises_parsing_errors, require_numbers
from hlrp.runtime.size_limits import WIDEST_LAYER

from ..common.preset import VLAPreset
from ..hlrp_vla_direct.configuration_hlrp_vla_direct import HLRPVLADirectConfig

_DECODERS: dict[str, dict[str, Any]] = {
    "learned": {"decoder": "laq", "decoder_layers": 2},
    "codebook_lookup": {"decoder": "mlp", "decoder_layers": 0},
}


@PreTrainedConfig.register_subclass("hlrp_vla")
@dataclass
class HLRPVLAConfig(VLAPreset, HLRPVLADirectConfig):
    """Chat model that predicts latent codes as action tokens, which are decoded to continuous actions."""

    chunk_size: int | None = 1
    """Actions predicted at once. None: the number of frames that one latent action spans, which is also the maximum."""
    n_action_steps: int | None = 1
    """Actions executed before the next prediction. None: half of chunk_size, rounded up."""
    laq_decoder_type: str = "learned"
    """Decoder from codes to actions. learned: an MLP on the tokens of the LAQ's decoder. codebook_lookup: a linear map
    of the code vectors."""
    decoder: str = ""
    """Set from laq_decoder_type to laq or mlp; leave it out."""
    decoder_layers: int = -1
    """Hidden layers of the MLP, set from laq_decoder_type to 2 or 0; leave it out."""

    max_state_dim: int = 32
    """Largest allowed number of state values; a larger state is refused."""
    max_action_dim: int = 32
    """Largest allowed number of action dimensions; a larger action is refused."""

    optimizer_lr_action: float | None = 5e-4
    """Peak learning rate of the decoder, which starts untrained while the VLA does not. None: optimizer_lr."""
    optimizer_betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates (betas) of AdamW's running means of the gradient and of its square."""
    optimizer_weight_decay: float = 0.01
    """Weight decay of weight matrices; biases and norms have none."""
    use_scheduler: bool = True
    """Use warmup and cosine decay. False: a constant learning rate."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        if self.laq_decoder_type not in _DECODERS:
            raise ValueError(f"laq_decoder_type must be one of {', '.join(_DECODERS)}, got {self.laq_decoder_type!r}")
        for name, value in _DECODERS[self.laq_decoder_type].items():
            mine = getattr(self, name)
            if mine not in (getattr(type(self), name), value):
                raise ValueError(
                    f"--policy.{name}={mine} contradicts --policy.laq_decoder_type={self.laq_decoder_type}, which "
                    f"means {value}; leave it out, or set --policy.{name}={value}"
                )
            setattr(self, name, value)
        require_numbers(self, "max_state_dim", "max_action_dim", at_least=1, limit=WIDEST_LAYER)
        super().__post_init__()

    def validate_features(self) -> None:
        """Check the input and output features, which LeRobot fills in from the dataset or environment.

        Raises:
            ValueError: If there is no camera or action, or state or action have too many values.
        """
        super().validate_features()
        for name, feature, limit in (
            ("state", self.robot_state_feature, self.max_state_dim),
            ("action", self.action_feature, self.max_action_dim),
        ):
            if feature is not None and feature.shape[0] > limit:
                raise ValueError(
                    f"the {name} has {feature.shape[0]} values, more than max_{name}_dim {limit}; raise "
                    f"--policy.max_{name}_dim"
                )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Linear warmup and cosine decay with the `scheduler_*` options; None if `use_scheduler` is false."""
        return super().get_scheduler_preset() if self.use_scheduler else None
