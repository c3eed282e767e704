"""Options of `hlrp-precompute-latent-codes`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.data.source_config import DEFAULT_TOLERANCE_S
from hlrp.options.cameras import chosen_cameras
from hlrp.runtime.checks import require_numbers


@dataclass
class PrecomputeConfig:
    """Label a LeRobotDataset with a trained LAQ; nothing of the dataset is changed or, by default, copied."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or its name on the hub."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between its time stamps and its frame rate, in seconds; raise it where they are rough."""
    camera: str | None = None
    """Dataset key of the camera; default: the one the LAQ was trained on."""
    cameras: list[str] = field(default_factory=list)
    """Several, for a LAQ of several cameras; default: those it was trained on, in their order."""
    output_dir: str | None = None
    """Folder of the labels; default: `latents` in the dataset's folder, where training finds them by itself."""
    output_dataset: str | None = None
    """Write a whole new dataset with the labels as columns to this folder, instead of a sidecar."""
    overwrite: bool = False
    """Replace labels that are there already (never a dataset)."""
    batch_size: int = 256
    """Clips per forward pass."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if self.output_dir is not None and self.output_dataset is not None:
            raise ValueError("labels go to one place: name output_dir or output_dataset, not both")
        require_numbers(self, "batch_size", at_least=1)
        require_numbers(self, "cache_gib", at_least=0)
        require_numbers(self, "tolerance_s", above=0)
        chosen_cameras(self.camera, self.cameras)
