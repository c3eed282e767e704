"""`hlrp-train-laq`: stage 1, learn latent actions from video alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import draccus
import torch

from hlrp.cli.common import choose_device, chosen_cameras, run_cli
from hlrp.data.clips import ClipAugmentation, ClipBatches, IdleClips
from hlrp.data.evaluation import evaluate_laq
from hlrp.data.source_config import LabelledShare, SourceConfig, open_training_sources
from hlrp.laq.checkpoint import save_laq
from hlrp.laq.config import PRESETS, LAQConfig, QuantizerName, TargetName
from hlrp.laq.frozen_targets import feature_dim, frozen_targets
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.quality import LAQQuality
from hlrp.laq.task import LAQTask, LAQTrainingConfig, LossWeights
from hlrp.laq.views import ViewConfig
from hlrp.latents import LatentSpec
from hlrp.optimization import OptimizerConfig
from hlrp.report.latent_table import quality_table
from hlrp.training import StepData, TrainerConfig, TrainingRun

logger = logging.getLogger(__name__)


@dataclass
class TrainLAQConfig:
    """Train a latent action quantizer on clips (t, t+offset) of LeRobotDatasets or plain videos; it needs no actions.

    Several sources may differ in frame rate, size and robot. The quality card is measured on the first of them.
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
    sources: list[SourceConfig] = field(default_factory=list)
    """Several sources, instead of one, such as [{dataset_root: demos, weight: 2}, {video_dir: films, weight: 1}]."""
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
    batch_size: int = 64
    optimizer: OptimizerConfig = field(default_factory=lambda: LAQTrainingConfig().optimizer)
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
    """Continue an interrupted run."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be positive, got {self.steps} and {self.batch_size}")
        self.trainer.require_divisible(self.batch_size)
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
        )
        if self.sources and single != SourceConfig():
            raise ValueError("name all datasets, cameras and video folders inside sources, or a single one without it")
        return self.sources or [single]

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


def train_laq(config: TrainLAQConfig) -> LAQQuality | None:
    """Train, measure on held-out episodes, save; with several processes, the first alone measures and saves."""
    run = TrainingRun(config.output_dir, resume=config.resume)
    device = choose_device(config.device)
    size = config.size()
    sources = open_training_sources(
        config.source_configs(),
        size.spec,
        image_size=size.image_size,
        cache_gib=config.cache_gib,
        held_out=config.held_out,
        labelled=LabelledShare(fraction=config.labelled_fraction, episodes=config.labelled_episodes),
        seed=config.seed,
    )
    batches = ClipBatches(
        sources,
        size.spec,
        batch_size=config.batch_size,
        num_batches=config.steps,
        seed=config.seed,
        augmentation=config.augmentation,
        idle=IdleClips(weight=config.idle_weight, share=config.idle_share),
    )
    first = sources[0].source
    frozen = frozen_targets(
        config.targets, grid=size.grid, feature_model=config.feature_model, flow_weights=config.flow_weights
    )
    laq_config = replace(
        size,
        num_cameras=first.num_cameras,
        targets=tuple(config.targets),
        feature_dim=feature_dim(frozen),
        action_dim=batches.action_size,
    )

    torch.manual_seed(config.seed)
    model = LatentActionQuantizer(laq_config)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    for part in sources:
        logger.info(
            f"LAQ of {parameters:.1f} M parameters on {len(part.episodes)} episodes of {part.source.name}, "
            f"{len(part.held_out)} held out, {len(part.labelled)} with actions"
        )
    training = LAQTrainingConfig(
        optimizer=config.optimizer, motion_strength=config.motion_strength, views=config.views, losses=config.losses
    )
    task = LAQTask(model, training, frozen)
    run.fit(
        task,
        StepData(batches, None, num_workers=config.num_workers),
        steps=config.steps,
        save_every=config.save_every,
        device=device,
        trainer=config.trainer,
    )
    if not run.is_main:
        return None
    model.to(device)
    quality = evaluate_laq(model, first, sources[0].episodes, sources[0].held_out, seed=config.seed)
    extra = {
        "sources": [
            {
                "name": part.source.name,
                "held_out_episodes": part.held_out.tolist(),
                "labelled_episodes": part.labelled.tolist(),
            }
            for part in sources
        ],
        "action_statistics": None if batches.action_statistics is None else batches.action_statistics.to_dict(),
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
    }
    save_laq(model, config.output_dir, cameras=first.cameras, quality=quality, extra=extra)
    run.finish()
    print(quality_table(quality))
    return quality


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_laq(draccus.parse(TrainLAQConfig)))


if __name__ == "__main__":
    main()
