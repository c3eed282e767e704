"""A plugin of LeRobot with one tiny policy, which on request cheats in one way."""

from .configuration_peeking import PeekingConfig as PeekingConfig
