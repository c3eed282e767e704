"""Options of `hlrp-pseudo-label`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, AddedSourceConfig
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.runtime.checks import changed_options, require_cameras, require_numbers

Start = Literal["laq", "scratch"]
"""Initial weights of the inverse dynamics models: the encoder of a LAQ, or random weights."""


@dataclass
class PseudoLabelConfig:
    """Fill in the actions of a LeRobotDataset of which few episodes have actions, for any policy of LeRobot.

    Inverse dynamics models are trained on the known actions. They predict all other actions from video, also those of
    further datasets or plain videos. The result is an ordinary LeRobotDataset: `action` is complete,
    `action_confidence` is the probability that an action is right, and `is_action_known` marks the true actions.
    """

    output_dir: Path
    """Folder of the new dataset. Required; the folder must not exist."""
    repo_id: str = "local/pseudo_labelled"
    """Repo id (name) of the new dataset."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset with some known actions; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    sources: list[AddedSourceConfig] = field(default_factory=list)
    """Further datasets or folders of plain videos, which join the new dataset; written as for hlrp-combine-datasets.
    Their actions are predicted from video, except those of a dataset that keeps `action`, which count as known."""
    labelled_episodes: list[int] = field(default_factory=list)
    """Numbers of the dataset's episodes whose actions are known; default: all with finite actions, or those that the
    column `is_action_valid` marks."""
    labelled_fraction: float = 1.0
    """Share of the episodes with actions, chosen at random, whose actions count as known, in (0, 1]."""
    action_valid_column: str | None = None
    """Boolean column that is true where the action is known, instead of the two options above."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras; default: the cameras of the LAQ, or the dataset's only camera."""
    start: Start = "laq"
    """What the models start from: the encoder of a LAQ that was trained on video, or random weights."""
    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or its repo id on the hub; only used with start=laq."""
    frame_offset_s: float = 0.1
    """Time between the two frames of a clip, in seconds; only with start=scratch, otherwise the LAQ's."""
    image_size: int = 64
    """Height and width of the frames in pixels; only with start=scratch, otherwise the LAQ's."""
    model: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    """Size and training of the models."""
    min_confidence: float = 0.0
    """Frames of lower confidence are marked false in the column `is_action_valid`, which hlrp policies respect, and
    episodes of lower mean confidence are left out of the command for lerobot-train; in [0, 1]."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the dataset's frame rate, in seconds. Raise it for
    datasets with imprecise time stamps."""
    cache_gib: float = 2.0
    """Size of the cache of decoded frames in memory, in GiB; a larger dataset is decoded on demand."""
    log_json: str | None = None
    """File to which every event of the run is appended as a line of JSON, for programs that watch it; default: none."""
    device: str | None = None
    """Device: cpu, cuda or mps; default: the best device of this machine."""

    def __post_init__(self) -> None:
        require_numbers(self, "labelled_fraction", above=0, at_most=1)
        require_numbers(self, "labelled_episodes", at_least=0)
        require_numbers(self, "min_confidence", at_least=0, at_most=1)
        require_numbers(self, "tolerance_s", "frame_offset_s", above=0)
        require_numbers(self, "image_size", at_least=16)
        require_numbers(self, "cache_gib", at_least=0)
        require_cameras("cameras", self.cameras)
        ignored = ("frame_offset_s", "image_size") if self.start == "laq" else ("laq_path",)
        changed = changed_options(self, *ignored)
        if changed:
            here, remedy = (
                ("laq, where the LAQ has its own", "--start=scratch")
                if self.start == "laq"
                else ("scratch, where no LAQ is read", "--start=laq")
            )
            raise ValueError(f"{changed[0]} has no effect with start={here}; leave it out, or set {remedy}")
