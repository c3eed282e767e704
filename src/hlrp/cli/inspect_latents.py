"""`hlrp-inspect-latents`: the quality report of a trained LAQ on any dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import draccus

from hlrp.cli.common import choose_device, run_cli
from hlrp.data.clips import choose_labelled, episodes_with_actions
from hlrp.data.dataset import DEFAULT_TOLERANCE_S, require_tolerance
from hlrp.data.evaluation import labelled_clips, quality_clips
from hlrp.data.recordings import MeasuredEpisodes, choose_measured
from hlrp.data.source_config import SourceConfig, open_source
from hlrp.data.sources import ClipSource
from hlrp.files import new_directory, refuse_existing, write_json
from hlrp.laq.baselines import LabellerConfig, baseline_rows, trainable_config
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.laq.quality import LAQQuality, measure_quality
from hlrp.report.latent_gallery import latent_gallery
from hlrp.report.latent_page import render_latent_page
from hlrp.report.latent_table import baseline_table, quality_table
from hlrp.verdicts import latent_conclusion

METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"


@dataclass
class InspectConfig:
    """Measure a LAQ on a dataset: on the episodes that its training held out, or on another dataset altogether."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint."""
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
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between the time stamps of the dataset and its frame rate, in seconds; raise it where they are
    rough."""
    output_dir: str | None = None
    """Folder for metrics.json and report.html; must not exist. Without it figures are printed only."""
    baselines: bool = False
    """Measure codes of the same size beside it: of an untrained LAQ, of inverse dynamics, of the true actions."""
    labelled_fraction: float = 0.025
    """Share of the other episodes whose actions the inverse-dynamics baseline learns from; at least one episode."""
    labeller_steps: int = 300
    """Optimizer steps of that baseline."""
    held_out: float = 0.1
    """Share of episodes to measure on; the dataset of the training brings its own split, and needs none."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    seed: int | None = None
    """Of every draw; default: that of the training."""
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if not 0 < self.labelled_fraction <= 1:
            raise ValueError(f"labelled_fraction must be in (0, 1], got {self.labelled_fraction}")
        require_tolerance(self.tolerance_s)
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
                dataset_repo_id=self.dataset_repo_id,
                dataset_root=self.dataset_root,
                cameras=self.cameras,
                tolerance_s=self.tolerance_s,
            )
        return SourceConfig(
            dataset_repo_id=self.dataset_repo_id,
            dataset_root=self.dataset_root,
            video_fps=self.video_fps,
            cameras=self.cameras or list(trained_on),
            tolerance_s=self.tolerance_s,
        )


def inspect_latents(config: InspectConfig) -> LAQQuality:
    """Measure and print; write where asked."""
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device)
    if config.output_dir is not None:
        refuse_existing(config.output_dir)
    source = open_source(config.source(laq.cameras), image_size=laq.model.config.image_size, cache_gib=config.cache_gib)
    laq.require_cameras(source.num_cameras)
    seed = laq.extra.get("seed", 0) if config.seed is None else config.seed
    deltas = laq.model.spec.frame_deltas(source.fps)
    episodes = choose_measured(laq.extra, source, deltas, held_out=config.held_out, seed=seed)
    clips = quality_clips(source, laq.model.spec, episodes.fit, episodes.measured, seed=seed)
    quality = measure_quality(laq.model, clips)
    print(f"{episodes.sentence}\n\n{quality_table(quality, episodes.short)}")
    rows = []
    if config.baselines:
        known = episodes_with_actions(source, episodes.fit)
        few = choose_labelled(known, fraction=config.labelled_fraction, seed=seed)
        labelled = labelled_clips(source, laq.model.spec, few)
        rows = baseline_rows(
            trainable_config(laq.model.config),
            quality,
            clips,
            labelled,
            config.labeller(),
            seed=seed,
            device=device,
        )
        print(f"\n{baseline_table(rows)}")
    if config.output_dir is not None:
        about = _about(config, laq, source, episodes)
        gallery = latent_gallery(laq.model, clips, quality)
        page = render_latent_page(quality, gallery, about, rows, episodes=episodes.sentence)
        with new_directory(config.output_dir) as folder:
            write_json(
                folder / METRICS_FILE,
                {
                    "quality": quality.to_dict(),
                    "verdict": latent_conclusion(quality.to_dict()).to_dict(),
                    "episodes": episodes.to_dict(),
                    "baselines": [row.to_dict() for row in rows],
                    "about": about,
                },
            )
            (folder / PAGE_FILE).write_text(page, encoding="utf-8")
        print(f"\nreport: {Path(config.output_dir) / PAGE_FILE}")
    return quality


def _about(config: InspectConfig, laq: LoadedLAQ, source: ClipSource, episodes: MeasuredEpisodes) -> dict[str, str]:
    spec = laq.model.spec
    codes = f"{spec.code_seq_len} codes of {spec.codebook_size}" if laq.model.quantizer.has_codes else "vectors"
    return {
        "LAQ": f"{config.laq_path} ({laq.fingerprint})",
        "latents": f"{laq.model.config.quantizer}: {codes} for each of {spec.num_transitions} transitions of "
        f"{spec.frame_offset_s:g} s",
        "source": source.name,
        "cameras": ", ".join(source.cameras) or "plain videos",
        "episodes": episodes.sentence,
    }


def main() -> None:
    """Entry point."""
    run_cli(lambda: inspect_latents(draccus.parse(InspectConfig)))


if __name__ == "__main__":
    main()
