"""HLRP: latent actions from video, and the robot policies that speak them."""

__version__ = "0.1.0"
