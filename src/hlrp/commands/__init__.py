"""What each command does, once `hlrp.cli` has read and checked its options."""
