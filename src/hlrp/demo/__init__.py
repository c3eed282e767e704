"""The whole road in one command: stages, each a command that a user could type, and their report."""
