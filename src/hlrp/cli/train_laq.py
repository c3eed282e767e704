"""`hlrp-train-laq`: stage 1, learn latent actions from video alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import draccus
import torch
from jaxtyping import Float, Int, UInt8
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.cli.common import choose_device, run_cli
from hlrp.data.clips import ClipAugmentation, ClipBatches, clip_is_valid, split_episodes
from hlrp.data.dataset import (
    episode_bounds,
    episode_of_frame,
    has_actions,
    open_dataset,
    read_actions,
    require_camera,
)
from hlrp.data.frames import FrameSource, open_frames
from hlrp.laq.checkpoint import save_laq
from hlrp.laq.config import PRESETS, LAQConfig, QuantizerName
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.quality import LAQQuality, clip_features, measure_quality
from hlrp.laq.task import LAQTask, LAQTrainingConfig
from hlrp.laq.views import ViewConfig
from hlrp.latents import LatentSpec
from hlrp.optimization import OptimizerConfig
from hlrp.tables import table
from hlrp.training import StepData, TrainingRun

logger = logging.getLogger(__name__)

_PROBE_CLIPS = 4096
"""Training clips that fit a probe; more change the third digit."""


@dataclass
class TrainLAQConfig:
    """Train a latent action quantizer on clips (t, t+offset) of a LeRobotDataset; actions only measure it."""

    dataset_repo_id: str = "local/hlrp_demos"
    """Repo id of the dataset."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    output_dir: str = "outputs/laq"
    """Folder of the checkpoint; must not exist."""
    camera: str | None = None
    """Dataset key of the camera; may be left out where there is only one."""
    preset: str = "small"
    """Size: debug, small or base."""
    image_size: int | None = None
    """Side of the frames in pixels, instead of the preset's."""
    quantizer: QuantizerName = "fsq"
    """fsq or vq."""
    codebook_size: int = 8
    """Codes k per slot."""
    code_seq_len: int = 4
    """Slots s per transition."""
    num_frames: int = 2
    """Frames T of a clip."""
    frame_offset_s: float = 0.1
    """Seconds between its frames."""
    steps: int = 1500
    batch_size: int = 64
    optimizer: OptimizerConfig = field(default_factory=lambda: LAQTrainingConfig().optimizer)
    motion_strength: float = 15.0
    """Extra loss weight of pixels that moved."""
    augmentation: ClipAugmentation = field(default_factory=ClipAugmentation)
    views: ViewConfig = field(default_factory=ViewConfig)
    """How the encoder's view of a clip differs from the one the decoder predicts."""
    held_out: float = 0.1
    """Share of episodes kept for the quality card."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    num_workers: int = 0
    """Processes that prepare batches; worth it where frames are decoded on demand."""
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

    def laq_config(self) -> LAQConfig:
        """The architecture these settings name."""
        spec = LatentSpec(
            codebook_size=self.codebook_size,
            code_seq_len=self.code_seq_len,
            num_frames=self.num_frames,
            frame_offset_s=self.frame_offset_s,
        )
        config = replace(PRESETS[self.preset](), spec=spec, quantizer=self.quantizer)
        return config if self.image_size is None else replace(config, image_size=(self.image_size, self.image_size))


def train_laq(config: TrainLAQConfig) -> LAQQuality:
    """Train, measure on held-out episodes, save."""
    run = TrainingRun(config.output_dir, resume=config.resume)
    device = choose_device(config.device)
    laq_config = config.laq_config()
    dataset = open_dataset(config.dataset_repo_id, config.dataset_root)
    camera = require_camera(dataset.meta, config.camera)
    bounds = episode_bounds(dataset.meta)
    offset = laq_config.spec.offset_frames(dataset.fps)
    valid = clip_is_valid(bounds, laq_config.spec.frame_deltas(dataset.fps))
    train, held_out = split_episodes(len(bounds), held_out=config.held_out, seed=config.seed)
    if not (valid & torch.isin(episode_of_frame(bounds), held_out)).any():
        raise ValueError("no held-out episode is long enough for a clip; use a shorter offset or another seed")
    frames = open_frames(dataset, camera, laq_config.image_size, cache_gib=config.cache_gib)

    torch.manual_seed(config.seed)
    model = LatentActionQuantizer(laq_config)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    logger.info(
        f"LAQ of {parameters:.1f} M parameters on {len(train)} episodes of {camera}, {len(held_out)} held out; "
        f"offset {offset} frames"
    )
    batches = ClipBatches(
        frames,
        bounds[train],
        offset=offset,
        num_frames=laq_config.spec.num_frames,
        batch_size=config.batch_size,
        num_batches=config.steps,
        seed=config.seed,
        augmentation=config.augmentation,
    )
    task = LAQTask(
        model, LAQTrainingConfig(optimizer=config.optimizer, motion_strength=config.motion_strength, views=config.views)
    )
    run.fit(
        task,
        StepData(batches, None, num_workers=config.num_workers),
        steps=config.steps,
        save_every=config.save_every,
        device=device,
    )
    model.to(device)
    quality = evaluate_laq(model, dataset, frames, train, held_out, seed=config.seed)
    extra = {
        "dataset_repo_id": config.dataset_repo_id,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "held_out_episodes": held_out.tolist(),
    }
    save_laq(model, config.output_dir, camera=camera, quality=quality, extra=extra)
    run.finish()
    print(quality_table(quality, laq_config.spec))
    return quality


def evaluate_laq(
    model: LatentActionQuantizer,
    dataset: LeRobotDataset,
    frames: FrameSource,
    train: Int[Tensor, " e"],
    held_out: Int[Tensor, " v"],
    *,
    seed: int,
) -> LAQQuality:
    """Quality card of `model`, probed on `held_out` episodes after fitting on `train` episodes."""
    bounds = episode_bounds(dataset.meta)
    deltas = torch.tensor(model.spec.frame_deltas(dataset.fps))
    valid, episode = clip_is_valid(bounds, deltas.tolist()), episode_of_frame(bounds)
    generator = torch.Generator().manual_seed(seed)

    def starts(episodes: Int[Tensor, " e"]) -> Int[Tensor, " m"]:
        found = (valid & torch.isin(episode, episodes)).nonzero()[:, 0]
        return found[torch.randperm(len(found), generator=generator)[:_PROBE_CLIPS]]

    def clips(start: Int[Tensor, " m"]) -> list[UInt8[Tensor, "b t c h w"]]:
        return [frames.read(chunk[:, None] + deltas) for chunk in start.split(256)]

    fit, test = starts(train), starts(held_out)
    if len(test) == 0:
        raise ValueError("no held-out episode is long enough for a clip; use a shorter offset or another seed")
    fit_actions = test_actions = None
    if has_actions(dataset):
        actions = read_actions(dataset)
        fit_actions, test_actions = (_chunks(actions, start, length=int(deltas[-1])) for start in (fit, test))
    return measure_quality(
        model, clip_features(model, clips(fit)), clip_features(model, clips(test)), fit_actions, test_actions
    )


def _chunks(actions: Float[Tensor, "n a"], start: Int[Tensor, " m"], *, length: int) -> Float[Tensor, "m h a"]:
    return actions[start[:, None] + torch.arange(length)]


def quality_table(quality: LAQQuality, spec: LatentSpec) -> str:
    """The card as a table for a terminal."""

    def r2(value: float | None) -> str:
        return "no actions" if value is None else f"{value:.3f}"

    return table(
        ["latent quality (held-out episodes)", "value", "what it means"],
        [
            ["probe R² from codes", r2(quality.probe_r2), "action chunk, linear, 1 is perfect"],
            ["probe R² from vectors", r2(quality.probe_r2_vectors), "before quantization"],
            [
                "probe R² from a still clip's codes",
                r2(quality.probe_r2_frame_only),
                "what frame t alone puts in the codes",
            ],
            [
                "probe R² from frame t's pixels",
                r2(quality.probe_r2_pixels),
                "best linear guess without the future",
            ],
            ["probe R² from pixels and codes", r2(quality.probe_r2_pixels_and_codes), ""],
            ["gain over the frame", r2(quality.probe_gain), "must be positive"],
            ["gain over copying frame t", f"{quality.copy_gain:.3f}", "0 is a copy, 1 perfect"],
            [
                "perplexity per slot",
                " ".join(f"{value:.1f}" for value in quality.perplexity),
                f"{spec.codebook_size} when all codes are used equally",
            ],
            ["dead codes per slot", " ".join(map(str, quality.dead_codes)), "codes no held-out clip uses"],
        ],
    )


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_laq(draccus.parse(TrainLAQConfig)))


if __name__ == "__main__":
    main()
