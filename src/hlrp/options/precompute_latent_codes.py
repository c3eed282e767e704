"""Options of `hlrp-precompute-latent-codes`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.data.source_config import DEFAULT_TOLERANCE_S
from hlrp.options.cameras import chosen_cameras
from hlrp.runtime.checks import require_numbers


@dataclass
class PrecomputeConfig:
    """Label every frame of a LeRobotDataset with the codes of a trained LAQ. The dataset itself is never changed."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or repo id of a LAQ on the hub."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the dataset's frame rate, in seconds. Raise it for
    datasets with imprecise time stamps."""
    camera: str | None = None
    """Dataset key of the camera to label; default: the camera the LAQ was trained on."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of several cameras, for a LAQ that encodes several cameras together; default: the cameras the LAQ
    was trained on, in the same order."""
    output_dir: str | None = None
    """Folder of the labels; default: `latents` inside the dataset's folder, where the training commands look first."""
    output_dataset: str | None = None
    """Folder of a new copy of the dataset that holds the labels as columns; written instead of `output_dir`."""
    overwrite: bool = False
    """Replace existing labels in `output_dir`. An existing dataset is never replaced."""
    batch_size: int = 256
    """Clips per forward pass of the LAQ."""
    cache_gib: float = 2.0
    """Size of the cache of decoded frames in memory, in GiB; a larger dataset is decoded on demand."""
    device: str | None = None
    """Device: cpu, cuda or mps; default: the best device of this machine."""

    def __post_init__(self) -> None:
        if self.output_dir is not None and self.output_dataset is not None:
            raise ValueError("labels go to one place: name output_dir or output_dataset, not both")
        require_numbers(self, "batch_size", at_least=1)
        require_numbers(self, "cache_gib", at_least=0)
        require_numbers(self, "tolerance_s", above=0)
        chosen_cameras(self.camera, self.cameras)
