"""Inverse dynamics: models that read actions from video, and how sure they are of what they read."""
