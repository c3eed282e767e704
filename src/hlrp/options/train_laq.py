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
from hlrp.laq.config import PRESETS, LAQConfig, TargetName
from hlrp.laq.objective.config import LAQOptimizerConfig, LAQTrainingConfig, LossWeights, ViewConfig
from hlrp.latent_spec import LatentSpec
from hlrp.options.cameras import chosen_cameras
from hlrp.runtime.checks import require_numbers, require_seed
from hlrp.training.config import TrainerConfig


@dataclass
class TrainLAQConfig:
    """Train a latent action quantizer on clips (t, t+offset) of LeRobotDatasets or plain videos; needs no actions.

    Several sources may differ in frame rate, image size and robot. The quality card is measured on the held-out
    episodes of the first source that has any. A source with a single episode holds out none, and without held-out
    episodes no quality card is made.
    """

    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    output_dir: str = "outputs/laq"
    """Folder of the new checkpoint; must not exist."""
    camera: str | None = None
    """Dataset key of the camera to train on; not needed if the dataset has only one camera."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of several cameras whose change one code describes together, such as [observation.images.top,
    observation.images.wrist]."""
    video_dir: str | None = None
    """Folder of plain videos (mp4, webm, mkv, mov, …), instead of a dataset. Each video is one episode."""
    video_fps: float | None = None
    """Frames per second at which plain videos are read; default: the highest frame rate among the videos."""
    skip_bad_videos: bool = False
    """Leave out video files that cannot be read, with a warning, instead of refusing the folder."""
    find_scene_cuts: bool = True
    """Leave out clips that contain a scene cut of a plain video; each video is decoded once beforehand to find cuts."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use, for training and measuring together; plain videos are numbered from 0 in the
    order of their paths, without those left out. Default: all."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the dataset's frame rate, in seconds. Raise it for
    datasets with imprecise time stamps."""
    sources: list[SourceConfig] = field(default_factory=list)
    """Several sources, instead of one, such as [{dataset_root: demos, weight: 2}, {video_dir: films, weight: 1}]. Each
    has the options of this command for a dataset (dataset_repo_id, dataset_root, cameras, …) or for plain videos
    (video_dir, video_fps, …), and a weight: the source's share of the training clips, relative to the other sources
    (default: proportional to its number of clips)."""
    preset: str = "small"
    """Preset of the network's size: debug, tiny, small, base or lapa."""
    image_size: int | None = None
    """Height and width of the frames in pixels; default: those of the preset."""
    quantizer: str = "kmeans"
    """Quantizer: kmeans, fsq, nsvq, vq, simvq, rvq or continuous (a beta-VAE, whose latents have no codes)."""
    codebook_size: int = 16
    """Codebook entries k of each slot."""
    code_seq_len: int = 4
    """Code slots s per transition."""
    num_frames: int = 2
    """Frames t of a clip, at least 2; a clip has t-1 transitions."""
    frame_offset_s: float = 0.1
    """Time between two consecutive frames of a clip, in seconds."""
    steps: int = 500
    """Number of optimizer steps."""
    code_fit_share: float = 0.2
    """Share of the steps that is left when the quantizer kmeans fits its codes, in (0, 1). From then on the encoder
    stays as it is, and the decoder learns the new codes. Other quantizers learn their codes at every step."""
    fit_codes_to: str = "video"
    """What the quantizer kmeans fits its codes to: `video`, all motion that altered views of a clip have in common; or
    `actions`, the motion that predicts the actions of the labelled episodes, without what else moves. `actions` needs
    many labelled episodes; those of `hlrp-pseudo-label` count."""
    batch_size: int = 64
    """Clips per optimizer step, summed over all processes."""
    optimizer: LAQOptimizerConfig = field(default_factory=LAQOptimizerConfig)
    """AdamW with its learning rate, linear warmup and cosine decay."""
    targets: list[TargetName] = field(default_factory=lambda: ["pixels"])
    """What the decoder predicts of the next frame, one or several of: pixels, features (of a frozen vision encoder),
    flow (optical flow)."""
    feature_model: str | None = None
    """Frozen vision encoder of transformers or timm for the target `features`: hub name or local folder, such as a
    DINOv3."""
    flow_weights: str | None = None
    """File with the state dict of torchvision's raft_small, for the target `flow`."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms of the loss."""
    motion_strength: float = 15.0
    """Extra weight of moving pixels in the reconstruction loss; 0 weights all pixels alike."""
    augmentation: ClipAugmentation = field(default_factory=ClipAugmentation)
    """Augmentation of clips in time, so that the decoder cannot guess the next frame from frame t alone."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """Augmentation of the encoder's input (shift, brightness, contrast); the decoder predicts the original clip."""
    idle_weight: float = 1.0
    """Probability of sampling an idle clip, relative to other clips; 1 samples all clips equally often."""
    idle_share: float = 0.25
    """Share of each source's clips, those with the least motion, that count as idle, in (0, 1)."""
    labelled_fraction: float = 0.0
    """Share of the training episodes, chosen by the seed, whose actions are an extra training target of the codes, in
    [0, 1]; 0 uses no actions."""
    labelled_episodes: list[int] = field(default_factory=list)
    """Numbers of the episodes whose actions are used, instead of `labelled_fraction`; only with a single source."""
    labelled_clips: int = 16
    """Clips of every batch that are sampled from the labelled episodes alone, neither reversed nor stretched; at most
    half of the batch. Without labelled episodes the option has no effect. 0: labelled clips are sampled like all
    others."""
    held_out: float = 0.1
    """Share of the episodes of each source that is held out to measure the quality, in (0, 1)."""
    cache_gib: float = 2.0
    """Size of the cache of decoded frames in memory, in GiB, divided equally among the sources; a source that does not
    fit is decoded on demand."""
    num_workers: int = 0
    """Number of processes that prepare batches; helps if frames are decoded on demand."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the optimizer steps are computed: devices, precision, gradient accumulation, loggers."""
    log_json: str | None = None
    """File to which every event of the run is appended as a line of JSON, for programs that watch it; default: none."""
    save_every: int = 200
    """Optimizer steps between saved training states, from which --resume continues."""
    resume: bool = False
    """Continue an interrupted run with the same settings. Only steps, save_every, paths, device, num_workers, cache_gib
    and, of trainer, devices, num_nodes, strategy (not to fsdp), compile, loggers and gates may differ."""
    seed: int = 0
    """Seed of the split into training and held-out episodes, of the initial weights and of all random choices."""
    license: str | None = None
    """Licence of the weights for the model card, in the hub's spelling; default: apache-2.0."""
    device: str | None = None
    """Device: cpu, cuda or mps; default: the best device of this machine."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        require_numbers(self, "steps", "batch_size", "image_size", "save_every", at_least=1)
        require_numbers(self, "num_workers", "cache_gib", "labelled_clips", at_least=0)
        require_numbers(self, "held_out", "code_fit_share", above=0, below=1)
        require_seed(self.seed)
        if self.fit_codes_to not in ("video", "actions"):
            raise ValueError(f"fit_codes_to must be video or actions, got {self.fit_codes_to!r}")
        has_labels = self.labelled_fraction > 0 or bool(self.labelled_episodes)
        if self.fit_codes_to == "actions" and (self.quantizer != "kmeans" or not has_labels):
            raise ValueError(
                "fit_codes_to=actions needs the quantizer kmeans and labelled episodes: set labelled_fraction or "
                f"labelled_episodes; got quantizer={self.quantizer}, labelled_fraction={self.labelled_fraction:g}"
            )
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be one or more, each once, got {self.targets}")
        self.trainer.require_divisible(self.batch_size)
        self._require_rows_of_a_pass()
        # Each call builds a configuration that checks its part of the options in __post_init__; the results are unused.
        self.size()
        self.training()
        self.idle_clips()
        self.labelled_share()
        self.source_configs()

    def _require_rows_of_a_pass(self) -> None:
        """Raise if a backward pass has one clip: vectors minus their mean are 0 then, and teach the encoder nothing."""
        rows = self.batch_size // self.trainer.accumulate
        if rows < 2:
            raise ValueError(
                "a LAQ is trained on differences between the clips of a backward pass, so it needs two or more; got "
                f"batch_size={self.batch_size} and trainer.accumulate={self.trainer.accumulate}"
            )

    def source_configs(self) -> list[SourceConfig]:
        """Return the sources to train on: `sources`, or the single dataset or video folder of the other options.

        Raises:
            ValueError: If `sources` and options of a single source are both given.
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
        """Return the options of the loss, the optimizer and the encoder's views."""
        return LAQTrainingConfig(
            optimizer=self.optimizer, motion_strength=self.motion_strength, views=self.views, losses=self.losses
        )

    def code_fit_step(self) -> int:
        """Return the optimizer step before which the quantizer `kmeans` fits its codes."""
        return min(round((1 - self.code_fit_share) * self.steps), self.steps - 1)

    def idle_clips(self) -> IdleClips:
        """Return how often clips with almost no motion are sampled."""
        return IdleClips(weight=self.idle_weight, share=self.idle_share)

    def labelled_share(self) -> LabelledShare:
        """Return which training episodes contribute their actions to the loss."""
        return LabelledShare(fraction=self.labelled_fraction, episodes=self.labelled_episodes)

    def size(self) -> LAQConfig:
        """Return the preset, with its codes, frames and quantizer replaced by those of the options."""
        spec = LatentSpec(
            codebook_size=self.codebook_size,
            code_seq_len=self.code_seq_len,
            num_frames=self.num_frames,
            frame_offset_s=self.frame_offset_s,
        )
        size = replace(PRESETS[self.preset](), spec=spec, quantizer=self.quantizer)
        return size if self.image_size is None else replace(size, image_size=(self.image_size, self.image_size))
