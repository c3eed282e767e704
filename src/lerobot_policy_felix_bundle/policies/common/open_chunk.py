"""Number of actions to load from a dataset while `chunk_size` is None.

LeRobot opens the dataset, with the window of actions that the configuration requests, before it builds the policy. The
number of frames that a label spans depends on the dataset's frame rate, which only the policy gets. The window is
therefore as long as any chunk may become, and the policy uses its first actions.
"""

from __future__ import annotations

import math
from pathlib import Path

HIGHEST_FPS = 120
"""Highest frame rate, in Hz, for which the window is long enough if the span of a label in seconds is known."""
WINDOW = 64
"""Actions in the window if that span is unknown; not more, because LeRobot takes about 0.1 ms to load each."""


def open_window(*folders: Path | str | None) -> int:
    """Number of actions in the window while `chunk_size` is None.

    Args:
        *folders: Folders of a foundation model or a policy; the first one that exists gives the span of a label.
    """
    # Imported here: every LeRobot command imports the configurations and would otherwise load transformers.
    from hlrp.foundation.checkpoint import DESCRIPTION_FILE, read_description

    for folder in folders:
        if folder and (Path(folder) / DESCRIPTION_FILE).is_file():
            spec = read_description(folder).latent_spec
            return math.ceil(spec.frame_offset_s * spec.num_transitions * HIGHEST_FPS) + spec.num_transitions
    return WINDOW
