"""Options of every command as dataclasses that check themselves. Nothing here imports torch: help answers at once."""
