"""LeRobot plugin: importing it registers the policies, their processor step and the Meta-World environment.

LeRobot imports this module by the name of the distribution. LeRobot's factories import a modeling module only when they
build that policy, so that other commands start fast.
"""

from hlrp.sim.configuration_light_metaworld import LightMetaworldConfig as LightMetaworldConfig

from .policies.common.processors import FloatVectorsProcessorStep as FloatVectorsProcessorStep
from .policies.hlrp_action_expert_direct.configuration_hlrp_action_expert_direct import (
    HLRPActionExpertDirectConfig as HLRPActionExpertDirectConfig,
)
from .policies.hlrp_action_expert_latent.configuration_hlrp_action_expert_latent import (
    HLRPActionExpertLatentConfig as HLRPActionExpertLatentConfig,
)
from .policies.hlrp_diffusion.configuration_hlrp_diffusion import HLRPDiffusionConfig as HLRPDiffusionConfig
from .policies.hlrp_vla.configuration_hlrp_vla import HLRPVLAConfig as HLRPVLAConfig
from .policies.hlrp_vla_direct.configuration_hlrp_vla_direct import HLRPVLADirectConfig as HLRPVLADirectConfig
