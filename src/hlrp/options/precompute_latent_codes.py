"""Options of `hlrp-precompute-latent-codes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, require_fitting_options
from hlrp.labelling.config import ClusterConfig, Executor, TaskResources
from hlrp.options.cameras import chosen_cameras
from hlrp.runtime.checks import require_numbers

_DEFAULT_LAQ = "outputs/laq"


@dataclass
class PrecomputeConfig:
    """Label every frame of a LeRobotDataset, or of plain videos, with the codes of the clip that starts there.

    The dataset itself is never changed. Labels are written in shards: an interrupted run that is started again keeps
    the shards that it has finished.
    """

    laq_path: str | None = None
    """Folder of the LAQ checkpoint, or repo id of a LAQ on the hub; default: outputs/laq."""
    laq_checkpoint: str | None = None
    """Another name of `laq_path`."""
    vla_checkpoint: str | None = None
    """Folder of a foundation model, or its repo id on the hub, that predicts the codes of the LAQ from single frames;
    the labels are then its predictions, and not what the LAQ encodes."""
    dataset: str | None = None
    """Folder or repo id of the dataset: another name of `dataset_root` or `dataset_repo_id`."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    video_dir: str | None = None
    """Folder of plain videos (mp4, webm, mkv, mov, …) to label, instead of a dataset. Each video is one episode."""
    video_fps: float | None = None
    """Frames per second at which plain videos are read; default: the highest frame rate among the videos."""
    find_scene_cuts: bool = True
    """Give no label to clips that contain a scene cut of a plain video; each video is decoded once more for it."""
    skip_bad_episodes: bool = False
    """Leave out episodes whose frames cannot be read, instead of ending with an error; their frames get no label, and
    `labels.json` says why. Plain videos that cannot be opened at all are left out entirely."""
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
    """Folder of a new copy of the dataset that holds the labels as columns; written instead of `output_dir`. Videos are
    linked where the file system allows it, and never encoded again."""
    overwrite: bool = False
    """Replace existing labels in `output_dir`. An existing dataset is never replaced."""
    batch_size: int = 256
    """Clips per forward pass of the model."""
    shard_frames: int = 4096
    """Frames of a shard: what is written, and after an interruption labelled again, together. A shard holds whole
    episodes of one video file; a larger file is divided evenly."""
    executor: Executor = "none"
    """Where shards are labelled: none (in this process), local (processes of this machine), slurm or ray (a cluster).
    All but none need the extra `scale`."""
    tasks: int | None = None
    """Tasks among which an executor divides the shards; default: one per shard."""
    workers: int | None = None
    """Tasks that an executor runs at the same time; default: one per core of this machine, all tasks on a cluster."""
    resources: TaskResources = field(default_factory=TaskResources)
    """What each task gets on a Slurm or Ray cluster."""
    log_json: str | None = None
    """File to which every event of the run is appended as a line of JSON, for programs that watch it; default: none.
    The tasks of a Slurm or Ray cluster add nothing to it."""
    device: str | None = None
    """Device: cpu, cuda or mps; default: the best device of the machine that labels."""

    def __post_init__(self) -> None:
        if self.output_dir is not None and self.output_dataset is not None:
            raise ValueError("labels go to one place: name output_dir or output_dataset, not both")
        self._take_other_names()
        self.laq_path = self.laq_path or _DEFAULT_LAQ
        require_numbers(self, "batch_size", "shard_frames", at_least=1)
        require_numbers(self, "tolerance_s", "video_fps", above=0)
        chosen_cameras(self.camera, self.cameras)
        self._check_source()
        self.cluster()

    def cluster(self) -> ClusterConfig:
        """Return where shards are labelled."""
        return ClusterConfig(executor=self.executor, tasks=self.tasks, workers=self.workers, resources=self.resources)

    def _take_other_names(self) -> None:
        """Move values that were given under other names to the options that the command reads."""
        if self.laq_checkpoint is not None:
            if self.laq_path is not None:
                raise ValueError("laq_checkpoint is another name of laq_path; give one of them")
            self.laq_path, self.laq_checkpoint = self.laq_checkpoint, None
        if self.dataset is not None:
            if self.dataset_root is not None or self.dataset_repo_id is not None:
                raise ValueError("dataset is another name of dataset_root or dataset_repo_id; give one of them")
            place = "dataset_root" if Path(self.dataset).is_dir() else "dataset_repo_id"
            setattr(self, place, self.dataset)
            self.dataset = None

    def _check_source(self) -> None:
        """Raise if options of a dataset and of plain videos are mixed."""
        require_fitting_options(self)
        if self.video_dir is None:
            return
        further = ("dataset_root", "dataset_repo_id", "camera", "cameras", "output_dataset", "vla_checkpoint")
        named = [name for name in further if getattr(self, name)]
        if named:
            raise ValueError(f"video_dir and {named[0]} exclude each other: plain videos are no dataset")
