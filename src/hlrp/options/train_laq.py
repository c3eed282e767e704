"""Options of `hlrp-train-laq`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hlrp.data.source_config import (
    DEFAULT_TOLERANCE_S,
    ClipAugmentation,
    IdleClips,
    LabelledShare,
    SourceConfig,
)
from hlrp.laq.config import PRESETS, LAQConfig, QuantizerName, TargetName
from hlrp.laq.objective.config import LAQOptimizerConfig, LAQTrainingConfig, LossWeights, ViewConfig
from hlrp.latent_spec import LatentSpec
from hlrp.options.cameras import chosen_cameras
from hlrp.runtime.checks import require_numbers, require_seed
from hlrp.training.config import TrainerConfig


@dataclass
class TrainLAQConfig:
    """Train a latent action quantizer on clips (t, t+offset) of LeRobotDatasets or plain videos; it needs no actions.

    Several sources may differ in frame rate, size and robot. The quality card is measured on the first of them that has
    an episode to hold out; one episode alone is trained on, and no card is made.
    """

    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    output_dir: str = "outputs/laq"
    """Folder of the checkpoint; must not exist."""
    camera: str | None = None
    """Dataset key of the camera; may be left out where there is only one."""
    cameras: list[str] = field(default_factory=list)
    """Several, which a code then describes together: [observation.images.top, observation.images.wrist]."""
    video_dir: str | None = None
    """Folder of plain videos (mp4, webm, mkv, mov, …; one episode each), instead of a dataset."""
    video_fps: float | None = None
    """Frames per second at which to read them; default: the highest rate among them."""
    skip_bad_videos: bool = False
    """Leave out video files that cannot be read, with a warning, instead of refusing the folder."""
    find_scene_cuts: bool = True
    """Leave out clips that lie across a scene cut of a film; decodes every film once beforehand."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use, trained on or held out; films count in the order of their paths. Default: all."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between the time stamps of the dataset and its frame rate, in seconds; raise it where they are
    rough."""
    sources: list[SourceConfig] = field(default_factory=list)
    """Several sources, instead of one, such as [{dataset_root: demos, weight: 2}, {video_dir: films, weight: 1}]. Each
    has either dataset_repo_id, dataset_root and cameras, or video_dir and video_fps, which mean what they mean here,
    and a weight: its share of the training clips, relative to the others (default: as its number of clips)."""
    preset: str = "small"
    """Size: debug, small, base or lapa."""
    image_size: int | None = None
    """Side of the frames in pixels, instead of the preset's."""
    quantizer: QuantizerName = "fsq"
    """fsq, nsvq, vq, simvq, rvq or continuous (a beta-VAE, whose latents have no codes)."""
    codebook_size: int = 8
    """Codes k per slot."""
    code_seq_len: int = 4
    """Slots s per transition."""
    num_frames: int = 2
    """Frames T of a clip."""
    frame_offset_s: float = 0.1
    """Seconds between its frames."""
    steps: int = 500
    """Optimizer steps in all."""
    batch_size: int = 64
    """Clips of one optimizer step, over all processes."""
    optimizer: LAQOptimizerConfig = field(default_factory=LAQOptimizerConfig)
    """AdamW, its warmup and its decay."""
    targets: list[TargetName] = field(default_factory=lambda: ["pixels"])
    """What the decoder predicts of the next frame: pixels, features of a frozen encoder, flow; one or several."""
    feature_model: str | None = None
    """Vision model of transformers or timm for features: a hub name such as a DINOv3, or a local folder."""
    flow_weights: str | None = None
    """File with the state dict of torchvision's raft_small, for flow."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms of the loss."""
    motion_strength: float = 15.0
    """Extra loss weight of what moved."""
    augmentation: ClipAugmentation = field(default_factory=ClipAugmentation)
    """How clips are varied, so that the future cannot be guessed from the first frame alone."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How the encoder's view of a clip differs from the one the decoder predicts."""
    idle_weight: float = 1.0
    """How often a clip in which next to nothing moves is drawn, relative to the others; 1 draws all alike."""
    idle_share: float = 0.25
    """Clips of a source with the least motion that count as idle."""
    labelled_fraction: float = 0.0
    """Share of training episodes, drawn by the seed, whose actions the codes are also trained to tell; 0 uses none."""
    labelled_episodes: list[int] = field(default_factory=list)
    """Or the numbers of these episodes; with a single source."""
    held_out: float = 0.1
    """Share of the episodes of each source kept for measuring."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size, sources sharing it equally; larger ones are decoded on demand."""
    num_workers: int = 0
    """Processes that prepare batches; worth it where frames are decoded on demand."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Devices, precision, accumulation, loggers: how the steps are run."""
    save_every: int = 200
    """Steps between resumable states."""
    resume: bool = False
    """Continue an interrupted run, with the settings it began with; steps and what computes them may change."""
    seed: int = 0
    """Of the split into training and held-out episodes, of the weights and of all draws."""
    license: str | None = None
    """Licence of the weights, for the model card, as the hub spells it; default: apache-2.0."""
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        require_numbers(self, "steps", "batch_size", "image_size", "save_every", at_least=1)
        require_numbers(self, "num_workers", "cache_gib", at_least=0)
        require_numbers(self, "held_out", above=0, below=1)
        require_seed(self.seed)
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be one or more, each once, got {self.targets}")
        self.trainer.require_divisible(self.batch_size)
        # What these build checks its own part of the options.
        self.size()
        self.training()
        self.idle_clips()
        self.labelled_share()
        self.source_configs()

    def source_configs(self) -> list[SourceConfig]:
        """The sources these settings name, in one of three ways.

        Raises:
            ValueError: If they name sources in two ways.
        """
        single = SourceConfig(
            dataset_repo_id=self.dataset_repo_id,
            dataset_root=self.dataset_root,
            cameras=chosen_cameras(self.camera, self.cameras),
            video_dir=self.video_dir,
            video_fps=self.video_fps,
            skip_bad_videos=self.skip_bad_videos,
            find_scene_cuts=self.find_scene_cuts,
            episodes=self.episodes,
            tolerance_s=self.tolerance_s,
        )
        if self.sources and single != SourceConfig():
            raise ValueError(
                "name all datasets, cameras, episodes and video folders inside sources, or a single one without it"
            )
        return self.sources or [single]

    def training(self) -> LAQTrainingConfig:
        """What the quantizer is trained with."""
        return LAQTrainingConfig(
            optimizer=self.optimizer, motion_strength=self.motion_strength, views=self.views, losses=self.losses
        )

    def idle_clips(self) -> IdleClips:
        """How often clips in which next to nothing moves are drawn."""
        return IdleClips(weight=self.idle_weight, share=self.idle_share)

    def labelled_share(self) -> LabelledShare:
        """Which training episodes may show their actions."""
        return LabelledShare(fraction=self.labelled_fraction, episodes=self.labelled_episodes)

    def size(self) -> LAQConfig:
        """The preset with the codes and frames these settings name."""
        spec = LatentSpec(
            codebook_size=self.codebook_size,
            code_seq_len=self.code_seq_len,
            num_frames=self.num_frames,
            frame_offset_s=self.frame_offset_s,
        )
        size = replace(PRESETS[self.preset](), spec=spec, quantizer=self.quantizer)
        return size if self.image_size is None else replace(size, image_size=(self.image_size, self.image_size))
