"""`hlrp-demo`: the whole pipeline as a list of stages, each a command that a user could type, and the report."""
