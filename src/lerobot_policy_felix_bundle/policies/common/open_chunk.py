"""How many actions to ask a dataset for while the length of a chunk is left open.

LeRobot opens the dataset, with the window of actions that a configuration asks for, before it builds the policy. How
many frames a label spans is only known together with the dataset's frame rate, which the policy learns. So the window
is as long as any chunk may become, and the policy takes the first actions of it.
"""

from __future__ import annotations

import math
from pathlib import Path

HIGHEST_FPS = 120
"""Frame rate up to which the window is long enough, where the seconds that a label spans are known beforehand."""
WINDOW = 64
"""Actions in the window where they are not known. LeRobot takes about 0.1 ms for each, hence no more than needed."""


def open_window(*folders: Path | str | None) -> int:
    """Actions in the window of a chunk of open length.

    Args:
        folders: Of a foundation model or a policy, whose codes the labels hold; the first that is one counts.
    """
    # Not imported above: every LeRobot command reads the configurations, and would pay for transformers.
    from hlrp.foundation.checkpoint import DESCRIPTION_FILE, read_description

    for folder in folders:
        if folder and (Path(folder) / DESCRIPTION_FILE).is_file():
            spec = read_description(folder).spec
            return math.ceil(spec.frame_offset_s * spec.num_transitions * HIGHEST_FPS) + spec.num_transitions
    return WINDOW
