"""`hlrp-inspect-latents`: measure the quality of a trained LAQ on a dataset, and write a report."""

from __future__ import annotations

from pathlib import Path

from hlrp.commands.running import choose_device
from hlrp.data.clips import choose_labelled, episodes_with_actions, log_cuts
from hlrp.data.recordings import MeasuredEpisodes, choose_measured
from hlrp.data.sources import ClipSource
from hlrp.data.training_sources import open_source
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import log_offset
from hlrp.measure.baselines import BaselineRow, baseline_rows, trainable_config
from hlrp.measure.held_out import labelled_clips, quality_clips
from hlrp.measure.laq_quality import LAQQuality, QualityClips, measure_quality
from hlrp.options.inspect_latents import InspectConfig
from hlrp.report.latent_table import baseline_table, quality_table
from hlrp.report.pages.latent_page import PAGE_FILE, latent_report
from hlrp.storage.files import new_directory, refuse_existing


def inspect_latents(config: InspectConfig) -> LAQQuality:
    """Measure the LAQ, print its quality card, and write the report if `config.output_dir` is given.

    Raises:
        FileNotFoundError: If the LAQ or the dataset does not exist.
        FileExistsError: If `config.output_dir` exists.
        ValueError: If the cameras do not fit the LAQ, or the episodes are too few or too short to measure on.
    """
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device)
    if config.output_dir is not None:
        refuse_existing(config.output_dir)  # before measuring, which takes minutes
    source = open_source(config.source(laq.cameras), image_size=laq.model.config.image_size, cache_gib=config.cache_gib)
    laq.require_cameras(source.num_cameras)
    spec = laq.model.spec
    seed = laq.extra.get("seed", 0) if config.seed is None else config.seed
    deltas = spec.frame_deltas(source.fps)
    log_offset(spec, source.fps, of=source.name)
    log_cuts(source, deltas)
    episodes = choose_measured(laq.extra, source, deltas, held_out=config.held_out, seed=seed)
    clips = quality_clips(source, spec, episodes.fit, episodes.measured, seed=seed)
    quality = measure_quality(laq.model, clips)
    print(f"{episodes.sentence}\n\n{quality_table(quality, episodes.short)}")
    baselines = []
    if config.baselines:
        baselines = _baselines(config, laq, source, episodes, clips, quality, seed=seed, device=device)
        print(f"\n{baseline_table(baselines)}")
    if config.output_dir is not None:
        about = _about(config, laq, source, episodes)
        files = latent_report(laq.model, clips, quality, about, baselines, episodes=episodes)
        with new_directory(config.output_dir) as folder:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
        print(f"\nreport: {Path(config.output_dir) / PAGE_FILE}")
    return quality


def _baselines(
    config: InspectConfig,
    laq: LoadedLAQ,
    source: ClipSource,
    episodes: MeasuredEpisodes,
    clips: QualityClips,
    quality: LAQQuality,
    *,
    seed: int,
    device: str,
) -> list[BaselineRow]:
    """Measure baselines whose codes have the LAQ's size, on the same clips."""
    # The inverse-dynamics baseline learns from few episodes, as a LAQ trained with labelled_fraction does.
    usable = episodes_with_actions(source, episodes.fit)
    few = choose_labelled(usable, fraction=config.labelled_fraction, seed=seed)
    return baseline_rows(
        trainable_config(laq.model.config),
        quality,
        clips,
        labelled_clips(source, laq.model.spec, few),
        config.labeller(),
        seed=seed,
        device=device,
    )


def _about(config: InspectConfig, laq: LoadedLAQ, source: ClipSource, episodes: MeasuredEpisodes) -> dict[str, str]:
    """Return what was measured on what, as rows of the report's last table."""
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
