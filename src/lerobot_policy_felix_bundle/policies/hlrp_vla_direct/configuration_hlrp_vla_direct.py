"""Configuration of `hlrp_vla_direct`: codes predicted by the foundation VLA, decoded to actions by an MLP."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from ..common.configuration import HLRPConfig


@PreTrainedConfig.register_subclass("hlrp_vla_direct")
@dataclass
class HLRPVLADirectConfig(HLRPConfig):
    """One frame and an instruction in, latent codes inside, a chunk of continuous actions out."""

    decoder_hidden_dim: int = 256
    """Width of the code-to-action decoder."""
    decoder_uses_state: bool = True
    """Give the decoder the robot's state beside the codes, where the dataset has one."""
