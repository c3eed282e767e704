"""Configuration of `hlrp_vla_direct`: codes predicted by the foundation VLA, decoded to actions."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from hlrp.runtime.checks import require_numbers, told_by_draccus

from ..common.configuration import HLRPConfig


@PreTrainedConfig.register_subclass("hlrp_vla_direct")
@dataclass
class HLRPVLADirectConfig(HLRPConfig):
    """One frame and an instruction in, latent codes inside, a chunk of continuous actions out."""

    decoder: str = "mlp"
    """From codes to actions. mlp: a perceptron on the codes' vectors. laq: on what the LAQ's own decoder makes of frame
    t and the codes; needs laq_checkpoint_path in training."""
    decoder_hidden_dim: int = 256
    """Width of the perceptron."""
    decoder_layers: int = 2
    """Its hidden layers; 0 is a linear map."""
    decoder_uses_state: bool = True
    """Give the decoder the robot's state beside the codes, where the dataset has one."""
    freeze_decoder: bool = False
    """Train the VLA alone."""
    freeze_laq_decoder: bool = True
    """Leave the LAQ's own decoder as it is, where decoder is laq."""

    @told_by_draccus
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder not in ("mlp", "laq"):
            raise ValueError(f"decoder must be mlp or laq, got {self.decoder!r}")
        require_numbers(self, "decoder_layers", at_least=0)
        require_numbers(self, "decoder_hidden_dim", at_least=1)

    def require_effect(self) -> None:
        """Raise where an option would have no effect in training beside the others.

        Raises:
            ValueError: Naming the option.
        """
        super().require_effect()
        if not self.freeze_laq_decoder and not self.looks_through_laq:
            raise ValueError(f"freeze_laq_decoder=false is for --policy.decoder=laq, and decoder is {self.decoder}")
        if self.freeze_vla and self.freeze_decoder:
            raise ValueError("freeze_vla and freeze_decoder leave nothing to train; set one of them to false")

    @property
    def looks_through_laq(self) -> bool:
        """Whether actions are decoded through the LAQ's own decoder."""
        return self.decoder == "laq"
