"""Configuration of `hlrp_vla`: `hlrp_vla_direct` around Cosmos-Reason2-2B, one action at a time."""

from dataclasses import dataclass
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

from hlrp.runtime.checks import require_numbers, told_by_draccus

from ..common.preset import VLAPreset
from ..hlrp_vla_direct.configuration_hlrp_vla_direct import HLRPVLADirectConfig

_DECODERS: dict[str, dict[str, Any]] = {
    "learned": {"decoder": "laq", "decoder_layers": 2},
    "codebook_lookup": {"decoder": "mlp", "decoder_layers": 0},
}


@PreTrainedConfig.register_subclass("hlrp_vla")
@dataclass
class HLRPVLAConfig(VLAPreset, HLRPVLADirectConfig):
    """Discrete action tokens of a chat model, decoded by the LAQ to continuous actions."""

    chunk_size: int | None = 1
    """Actions predicted at once. None: as many as the frames that a label spans, which is also the most."""
    n_action_steps: int | None = 1
    """Actions executed before the next prediction. None: half of chunk_size, rounded up."""
    codebook_size: int | None = 8
    """Codes k per slot; must be the LAQ's. None: take it from there."""
    code_seq_len: int | None = 4
    """Code slots s per transition; must be the LAQ's. None: take it from there."""
    laq_decoder_type: str = "learned"
    """learned: through the LAQ's own decoder. codebook_lookup: a linear map of the codes' vectors."""
    decoder: str = ""
    """Follows laq_decoder_type: laq or mlp."""
    decoder_layers: int = -1
    """Follows laq_decoder_type: 2 or 0."""

    max_state_dim: int = 32
    """State values the robot may have."""
    max_action_dim: int = 32
    """Action dimensions it may have."""

    optimizer_betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    optimizer_weight_decay: float = 0.01
    """Decoupled weight decay."""
    use_scheduler: bool = True
    """Whether the learning rate warms up and decays."""

    @told_by_draccus
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
        require_numbers(self, "max_state_dim", "max_action_dim", at_least=1)
        super().__post_init__()

    def validate_features(self) -> None:
        """Check the features once they are known.

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
        """Warmup and cosine with the fields above, or none."""
        return super().get_scheduler_preset() if self.use_scheduler else None
