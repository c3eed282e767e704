"""Inverse dynamics models: they predict the actions of a video, with a confidence, to make pseudo-labels (VPT)."""
