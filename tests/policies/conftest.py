"""Tiny policies on a tiny real dataset, with real labels."""
