"""Largest sizes that a configuration or a file may ask for, so that a damaged number is refused before memory is taken.

Each limit is far above what a useful model or dataset has. `hlrp.storage.weight_files` compares a whole architecture
with the weights beside it, since a product of sizes can be too large although each of them is not.
"""

from __future__ import annotations

MOST_CODEBOOK_ENTRIES = 2**20
"""Entries k of a codebook."""
MOST_CODE_SLOTS = 2**12
"""Code slots of one label, over all its transitions."""
MOST_LOGITS = 2**24
"""Code slots of one label times codebook entries."""
MOST_CODEBOOK_NUMBERS = 2**28
"""Codebook entries times the width of a code vector."""
MOST_CLIP_FRAMES = 2**10
"""Frames of a clip."""
LONGEST_OFFSET_S = 86_400.0
"""Time between two frames of a clip, in seconds: a day."""
LARGEST_LATENT = 1e6
"""Absolute value of a number in a latent vector or code vector; those of trained quantizers are below 100."""
WIDEST_LAYER = 2**16
"""Width of a layer, a vector or an action."""
MOST_LAYERS = 2**10
"""Layers of one part of a network, such as its encoder."""
MOST_CAMERAS = 2**6
"""Cameras of a clip or an observation."""
LARGEST_SIDE_PX = 2**13
"""Height or width of a frame that a model takes, in pixels."""
LONGEST_CHUNK = 2**14
"""Actions that a policy predicts at once."""
MOST_NOISE_DRAWS = 2**10
"""Noisy chunks that an action expert learns from for every training sample."""
HIGHEST_FPS = 1e5
"""Frame rate of a dataset, in Hz."""
HIGHEST_FILE_NUMBER = 10**6
"""Number of a file or folder in the names of a dataset's files."""
LONGEST_TEMPLATE = 2**20
"""Characters of a chat template, and of the prompt that it makes."""
TEMPLATE_SECONDS = 5.0
"""Time that a chat template may take to make one prompt, in seconds."""
TEMPLATE_MEMORY = 2**31
"""Memory that a chat template may take to make one prompt, in bytes."""
MOST_VOCABULARY_ROWS = 2**24
"""Tokens of a language model."""
