"""`hlrp-inspect-latents`: measure the quality of a trained LAQ on a dataset, and write a report."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from hlrp.commands.running import choose_device
from hlrp.data.clip_actions import episodes_with_actions
from hlrp.data.clip_starts import log_cuts
from hlrp.data.episode_split import choose_labelled
from hlrp.data.recordings import MeasuredEpisodes, choose_measured, trained_sources
from hlrp.data.sources import ClipSource
from hlrp.data.training_sources import open_source
from hlrp.laq.checkpoint import DESCRIPTION_FILE, LoadedLAQ, load_laq
from hlrp.latents import log_offset
from hlrp.measure.baselines import BaselineRow, baseline_rows
from hlrp.measure.held_out import labelled_clips, quality_clips
from hlrp.measure.laq_quality import LAQQuality, QualityClips, measure_quality
from hlrp.options.inspect_latents import InspectConfig
from hlrp.report.latent_table import baseline_table, quality_table
from hlrp.report.pages.latent_page import PAGE_FILE, latent_report
from hlrp.runtime.checks import require_seed
from hlrp.storage.artefacts import reading
from hlrp.storage.files import new_directory, refuse_existing, sole_writer
from hlrp.storage.plain_values import from_plain


def inspect_latents(config: InspectConfig) -> LAQQuality:
    """Measure the LAQ, print its quality card, and write the report if `config.output_dir` is given.

    Raises:
        FileNotFoundError: If the LAQ or the dataset does not exist.
        FileExistsError: If `config.output_dir` exists, or another process is writing it.
        ValueError: If the cameras do not fit the LAQ, or the episodes are too few or too short to measure on.
    """
    with nullcontext() if config.output_dir is None else sole_writer(config.output_dir):
        if config.output_dir is not None:
            refuse_existing(config.output_dir)  # before measuring, which takes minutes
        return _inspect(config)


def _inspect(config: InspectConfig) -> LAQQuality:
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device=device)
    source = open_source(config.source(laq.cameras), image_size=laq.model.config.image_size, cache_gib=config.cache_gib)
    laq.require_cameras(source.cameras)
    with reading(f"{DESCRIPTION_FILE} of {config.laq_path}"):
        trained_on = trained_sources(laq.extra)
        seed = from_plain(int, laq.extra.get("seed", 0), at="extra.seed") if config.seed is None else config.seed
        require_seed(seed)
    spec = laq.model.spec
    deltas = spec.frame_deltas(source.fps)
    log_offset(spec, source.fps, of=source.name)
    log_cuts(source, deltas)
    episodes = choose_measured(
        trained_on, source, deltas, held_out=config.held_out, seed=seed, episodes=config.episodes
    )
    known = _with_actions(source, episodes) if config.baselines else episodes  # before measuring, which takes minutes
    clips = quality_clips(source, spec, episodes.fit, episodes.measured, seed=seed)
    quality = measure_quality(laq.model, clips)
    print(f"{episodes.sentence}\n\n{quality_table(quality, episodes.short)}")
    baselines = []
    if config.baselines:
        has_all = len(known.fit) == len(episodes.fit) and len(known.measured) == len(episodes.measured)
        baselines = _baselines(
            config, laq, source, known, (clips, quality) if has_all else None, seed=seed, device=device
        )
        print(f"\n{baseline_table(baselines)}")
    if config.output_dir is not None:
        about = _about(config, laq, source, episodes)
        files = latent_report(laq.model, clips, quality, about, baselines, episodes=episodes)
        with new_directory(config.output_dir) as folder:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
        print(f"\nreport: {Path(config.output_dir) / PAGE_FILE}")
    return quality


def _with_actions(source: ClipSource, episodes: MeasuredEpisodes) -> MeasuredEpisodes:
    """Keep the episodes to fit on and to measure that have known actions: baselines are compared on these.

    Raises:
        ValueError: If no episode to fit on, or none to measure, has known actions.
    """
    source = replace(source, actions=source.recorded_actions)  # actions predicted from video are no truth
    known = {name: episodes_with_actions(source, getattr(episodes, name)) for name in ("fit", "measured")}
    if source.actions is None:
        raise ValueError(f"{source.name} has no actions, which baselines are compared on; leave the baselines out")
    for name, purpose in (("fit", "to fit probes on"), ("measured", "to measure")):
        if not len(known[name]):
            raise ValueError(
                f"none of the {len(getattr(episodes, name))} episodes {purpose} of {source.name} has known actions, "
                "which baselines are compared on; choose other episodes with episodes, or leave the baselines out"
            )
    return replace(episodes, **known)


def _baselines(
    config: InspectConfig,
    laq: LoadedLAQ,
    source: ClipSource,
    known: MeasuredEpisodes,
    measured: tuple[QualityClips, LAQQuality] | None,
    *,
    seed: int,
    device: str,
) -> list[BaselineRow]:
    """Compare the LAQ with the baselines on the episodes `known`, which have actions.

    `measured` holds the clips and metrics of these episodes; None if the LAQ was measured on others, too.
    """
    spec = laq.model.spec
    if measured is None:
        clips = quality_clips(source, spec, known.fit, known.measured, seed=seed)
        measured = clips, measure_quality(laq.model, clips)
    # The inverse-dynamics baseline learns from few episodes, as a LAQ trained with labelled_fraction does.
    few = choose_labelled(known.fit, fraction=config.labelled_fraction, seed=seed)
    labelled = labelled_clips(source, spec, few)
    clips, quality = measured
    return baseline_rows(laq.model.config, quality, clips, labelled, config.labeller(), seed=seed, device=device)


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
