"""Configuration of `hlrp_vla_direct`: the foundation VLA predicts latent codes, which are decoded to actions."""

from dataclasses import dataclass
from typing import ClassVar

from lerobot.configs import PreTrainedConfig

from hlrp.runtime.checks import raises_parsing_errors, require_numbers
from hlrp.runtime.size_limits import MOST_LAYERS, WIDEST_LAYER

from ..common.configuration import HLRPConfig


@PreTrainedConfig.register_subclass("hlrp_vla_direct")
@dataclass
class HLRPVLADirectConfig(HLRPConfig):
    """Foundation VLA that predicts latent codes, and a decoder that maps them to a chunk of continuous actions."""

    state_option: ClassVar[str] = "decoder_uses_state"
    chunk_ends_with_label: ClassVar[bool] = True

    decoder: str = "mlp"
    """Decoder from codes to actions. mlp: an MLP on the code vectors. laq: an MLP on the tokens that the LAQ's own
    decoder computes from frame t and the codes; training then needs laq_checkpoint_path."""
    decoder_hidden_dim: int = 256
    """Width of the hidden layers of the decoder's MLP."""
    decoder_layers: int = 2
    """Hidden layers of the decoder's MLP; 0 is a linear map."""
    decoder_uses_state: bool = True
    """Give the decoder the robot's state in addition to the codes, if the dataset has one."""
    freeze_decoder: bool = False
    """Freeze the decoder from codes to actions; train only the foundation VLA."""
    freeze_laq_decoder: bool = True
    """Freeze the LAQ's own decoder and train only the MLP on top of it, if decoder is laq."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder not in ("mlp", "laq"):
            raise ValueError(f"decoder must be mlp or laq, got {self.decoder!r}")
        require_numbers(self, "decoder_layers", at_least=0, limit=MOST_LAYERS)
        require_numbers(self, "decoder_hidden_dim", at_least=1, limit=WIDEST_LAYER)

    def require_effect(self) -> None:
        """Refuse an option that has no effect in training, given the other options.

        Raises:
            ValueError: If an option has no effect; the message names it.
        """
        super().require_effect()
        if not self.freeze_laq_decoder and not self.looks_through_laq:
            raise ValueError(f"freeze_laq_decoder=false is for --policy.decoder=laq, and decoder is {self.decoder}")
        if self.freeze_vla and self.freeze_decoder:
            raise ValueError("freeze_vla and freeze_decoder leave nothing to train; set one of them to false")

    @property
    def actions_need_codes(self) -> bool:
        """Whether actions can be learned only on frames with codes: true, since actions are decoded from codes."""
        return True

    @property
    def learns_actions(self) -> bool:
        """Whether training learns anything from the actions of the dataset; only the decoder does."""
        return super().learns_actions and not self.freeze_decoder

    @property
    def looks_through_laq(self) -> bool:
        """Whether the policy contains the LAQ's decoder: true if `decoder` is laq."""
        return self.decoder == "laq"
