"""Implementations of the `hlrp-*` commands; their options are read and checked in `hlrp.cli`."""
