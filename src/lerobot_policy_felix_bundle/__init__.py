"""LeRobot plugin: importing it registers our policies, the step of their pipelines and our environment.

LeRobot imports this module by the distribution's name. Modeling modules are imported by LeRobot's factories when a
policy is built, so that other commands do not pay for them.
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
