"""HLRP: latent actions learned from video, foundation VLAs that predict them, and LeRobot policies built on these."""

__version__ = "0.1.0"
