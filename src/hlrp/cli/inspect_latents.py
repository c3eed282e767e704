"""`hlrp-inspect-latents`: the quality report of a trained LAQ on any dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import draccus

from hlrp.cli.common import choose_device, run_cli
from hlrp.data.clips import choose_labelled, log_cuts, split_episodes
from hlrp.data.evaluation import labelled_clips, quality_clips
from hlrp.data.source_config import SourceConfig, open_source
from hlrp.data.sources import ClipSource
from hlrp.files import new_directory, refuse_existing, write_json
from hlrp.laq.baselines import LabellerConfig, baseline_rows, trainable_config
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.laq.quality import LAQQuality, measure_quality
from hlrp.latents import log_offset
from hlrp.report.latent_gallery import latent_gallery
from hlrp.report.latent_page import render_latent_page
from hlrp.report.latent_table import baseline_table, quality_table

METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"


@dataclass
class InspectConfig:
    """Measure a LAQ on held-out episodes of a dataset; it need not be the one it was trained on."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or its name on the hub."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras; default: those the LAQ was trained on."""
    video_dir: str | None = None
    """Folder of plain videos, instead of a dataset; figures of actions are then left out."""
    video_fps: float | None = None
    """Frames per second at which to read them; default: the highest rate among them."""
    skip_bad_videos: bool = False
    """Leave out video files that cannot be read, with a warning, instead of refusing the folder."""
    find_scene_cuts: bool = True
    """Leave out clips that lie across a scene cut of a film; decodes every film once beforehand."""
    output_dir: str | None = None
    """Folder for metrics.json and report.html; must not exist. Without it figures are printed only."""
    baselines: bool = False
    """Measure codes of the same size beside it: of an untrained LAQ, of inverse dynamics, of the true actions."""
    labelled_fraction: float = 0.025
    """Share of the training episodes whose actions the inverse-dynamics baseline learns from; at least one episode."""
    labeller_steps: int = 300
    """Optimizer steps of that baseline."""
    held_out: float = 0.1
    """Share of episodes that score the probes; with the seed of training, the very episodes it held out."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if not 0 < self.labelled_fraction <= 1:
            raise ValueError(f"labelled_fraction must be in (0, 1], got {self.labelled_fraction}")
        self.labeller()

    def labeller(self) -> LabellerConfig:
        """Training of the inverse-dynamics baseline."""
        return LabellerConfig(steps=self.labeller_steps)

    def source(self, trained_on: Sequence[str]) -> SourceConfig:
        """Where clips come from; a dataset through the cameras that the LAQ was `trained_on`, if none is named."""
        if self.video_dir is not None:
            return SourceConfig(
                video_dir=self.video_dir,
                video_fps=self.video_fps,
                skip_bad_videos=self.skip_bad_videos,
                find_scene_cuts=self.find_scene_cuts,
                dataset_repo_id=self.dataset_repo_id,
                dataset_root=self.dataset_root,
                cameras=self.cameras,
            )
        return SourceConfig(
            dataset_repo_id=self.dataset_repo_id,
            dataset_root=self.dataset_root,
            video_fps=self.video_fps,
            skip_bad_videos=self.skip_bad_videos,
            cameras=self.cameras or list(trained_on),
        )


def inspect_latents(config: InspectConfig) -> LAQQuality:
    """Measure and print; write where asked."""
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device)
    if config.output_dir is not None:
        refuse_existing(config.output_dir)
    source = open_source(config.source(laq.cameras), image_size=laq.model.config.image_size, cache_gib=config.cache_gib)
    laq.require_cameras(source.num_cameras)
    log_offset(laq.model.spec, source.fps, of=source.name)
    log_cuts(source, laq.model.spec.frame_deltas(source.fps))
    train, held_out = split_episodes(len(source.bounds), held_out=config.held_out, seed=config.seed)
    clips = quality_clips(source, laq.model.spec, train, held_out, seed=config.seed)
    quality = measure_quality(laq.model, clips)
    print(quality_table(quality))
    rows = []
    if config.baselines:
        few = choose_labelled(train, fraction=config.labelled_fraction, seed=config.seed)
        labelled = labelled_clips(source, laq.model.spec, few)
        rows = baseline_rows(
            trainable_config(laq.model.config),
            quality,
            clips,
            labelled,
            config.labeller(),
            seed=config.seed,
            device=device,
        )
        print(f"\n{baseline_table(rows)}")
    if config.output_dir is not None:
        about = _about(config, laq, source)
        page = render_latent_page(quality, latent_gallery(laq.model, clips, quality), about, rows)
        with new_directory(config.output_dir) as folder:
            write_json(
                folder / METRICS_FILE,
                {"quality": quality.to_dict(), "baselines": [row.to_dict() for row in rows], "about": about},
            )
            (folder / PAGE_FILE).write_text(page, encoding="utf-8")
        print(f"\nreport: {Path(config.output_dir) / PAGE_FILE}")
    return quality


def _about(config: InspectConfig, laq: LoadedLAQ, source: ClipSource) -> dict[str, str]:
    spec = laq.model.spec
    codes = f"{spec.code_seq_len} codes of {spec.codebook_size}" if laq.model.quantizer.has_codes else "vectors"
    return {
        "LAQ": f"{config.laq_path} ({laq.fingerprint})",
        "latents": f"{laq.model.config.quantizer}: {codes} for each of {spec.num_transitions} transitions of "
        f"{spec.frame_offset_s:g} s",
        "source": source.name,
        "cameras": ", ".join(source.cameras) or "plain videos",
        "held out": f"{config.held_out:.0%} of {len(source.bounds)} episodes, seed {config.seed}",
    }


def main() -> None:
    """Entry point."""
    run_cli(lambda: inspect_latents(draccus.parse(InspectConfig)))


if __name__ == "__main__":
    main()
