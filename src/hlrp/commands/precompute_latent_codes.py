"""`hlrp-precompute-latent-codes`: label every frame of a dataset with the codes of the clip that starts there."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.commands.running import choose_device
from hlrp.data.dataset import dataset_name, open_dataset
from hlrp.data.labels import LABELS_DIR, LABELS_FOLDER, LabelMetadata
from hlrp.data.recording_identity import RecordingIdentity, dataset_identity, films_identity
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.data.video_folder import open_video_source
from hlrp.foundation.checkpoint import LoadedFoundation, load_foundation
from hlrp.labelling.cluster import LabelTask, MergeTask, local_workers, run_tasks, submit_tasks
from hlrp.labelling.columns import label_features
from hlrp.labelling.engine import Labelled, label_shards, publish, published
from hlrp.labelling.job import LabelJob
from hlrp.labelling.labellers import Instructions, LAQLabeller, VLALabeller
from hlrp.labelling.work_folder import WorkFolder
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import fingerprint, log_offset, require_same_laq
from hlrp.options.cameras import chosen_cameras
from hlrp.options.precompute_latent_codes import PrecomputeConfig
from hlrp.report.cards.dataset_card import CARD_FILE, DatasetContent
from hlrp.report.cards.labelled_card import labelled_card
from hlrp.runtime.event_log import event_log, log_event
from hlrp.storage.files import refuse_existing, sole_writer

logger = logging.getLogger(__name__)


def precompute_latent_codes(config: PrecomputeConfig) -> Labelled | None:
    """Label the dataset and write the labels to `output_dir`, or a labelled copy of the dataset to `output_dataset`.

    Returns:
        What was written; None if the work was submitted to Slurm.

    Raises:
        FileNotFoundError: If a model or the dataset does not exist.
        FileExistsError: If the target exists and may not be replaced, or another process is writing it.
        ValueError: If the cameras or the models do not fit together, frames cannot be read, or a task failed.
    """
    with event_log(config.log_json, command="hlrp-precompute-latent-codes", options=config):
        return _label(config)


def _label(config: PrecomputeConfig) -> Labelled | None:
    job = open_job(config, None)
    target = Path(config.output_dataset or config.output_dir or job.folder / LABELS_DIR)
    as_dataset = config.output_dataset is not None
    work = WorkFolder(target)
    with sole_writer(target):
        done = published(job, work, target, as_dataset=as_dataset)
        if done is not None:
            return _reported(done)
        if as_dataset:
            refuse_existing(target)
        else:
            LABELS_FOLDER.refuse_existing(target, overwrite=config.overwrite)
        work.prepare(job.fingerprint(), job.metadata)
        if config.executor == "none":
            with work.kept_if_useful():
                label_shards(job, work, job.shards())
                return _reported(publish(job, work, target, as_dataset=as_dataset, overwrite=config.overwrite))
        if config.executor != "slurm":
            run_tasks(config.cluster(), _label_task(config, target), num_shards=len(job.shards()))
            return _reported(publish(job, work, target, as_dataset=as_dataset, overwrite=config.overwrite))
    # The last task locks the target, in another process.
    merge = MergeTask(partial(open_job, config), target.absolute(), as_dataset, config.overwrite)
    submit_tasks(config.cluster(), _label_task(config, target), merge, num_shards=len(job.shards()))
    print(f"submitted to Slurm; the last task writes {target}. If a task fails, start the same command again")
    return None


def _reported(labelled: Labelled) -> Labelled:
    print(labelled.report())
    log_event(
        "saved",
        path=str(labelled.target),
        frames=labelled.frames,
        labelled=labelled.labelled,
        skipped=labelled.skipped,
    )
    return labelled


def _label_task(config: PrecomputeConfig, target: Path) -> LabelTask:
    """The task of an executor. Every task opens the job anew, from the same options."""
    is_local = config.executor == "local"
    threads = max((os.cpu_count() or 1) // local_workers(config.cluster()), 1) if is_local else None
    return LabelTask(partial(open_job, config), target.absolute(), threads, _log_of_tasks(config))


def _log_of_tasks(config: PrecomputeConfig) -> Path | None:
    """The log of events that tasks add to: machines of a cluster could not append to one file without losing lines."""
    if config.log_json is None or config.executor != "local":
        return None
    return Path(config.log_json).absolute()


def open_job(config: PrecomputeConfig, known: LabelMetadata | None) -> LabelJob:
    """Load the models and open the dataset or the films.

    Args:
        config: Options of the command.
        known: Description of the labels, from the process that has checked and identified the dataset; None to do both
            here.
    """
    device = choose_device(config.device)
    laq = load_laq(config.laq_path or "", device=device)
    if config.video_dir is not None:
        return _films_job(config, Path(config.video_dir), laq, known)
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    dataset = open_dataset(name, config.dataset_root, tolerance_s=config.tolerance_s, check_rows=known is None)
    chosen = chosen_cameras(config.camera, config.cameras)
    vla = None if config.vla_checkpoint is None else load_foundation(config.vla_checkpoint, device=device)
    if vla is None:
        labeller, image_size, cameras = LAQLabeller(laq.model), laq.model.config.image_size, chosen or laq.cameras
        laq.require_cameras(cameras)
    else:
        _require_vla_of(vla, laq, config)
        labeller = VLALabeller(vla.backend, laq.model, Instructions(dataset))
        image_size = vla.backend.config.image_size
        cameras = chosen or vla.description.cameras_in(dataset.meta.camera_keys, dataset=dataset.repo_id)
    source = lerobot_source(dataset, cameras=cameras, image_size=image_size, cache_gib=0, with_actions=False)
    if known is None:
        log_offset(laq.model.spec, source.fps, of=source.name)
        frames = dataset_identity(dataset.meta, source.cameras, with_instructions=vla is not None)
        known = _metadata(laq, vla, source, frames)
        pa.default_memory_pool().release_unused()  # memory that the check of all rows used
    return LabelJob(
        source=source,
        folder=Path(dataset.root),
        dataset=dataset,
        labeller=labeller,
        metadata=known,
        batch_size=config.batch_size,
        shard_frames=config.shard_frames,
        skip_bad_episodes=config.skip_bad_episodes,
        beside=partial(_card, dataset),
    )


def _card(dataset: LeRobotDataset, labels: LabelMetadata, labelled: int) -> Mapping[str, str]:
    content = DatasetContent.of(dataset.meta, added=label_features(labels))
    return {CARD_FILE: labelled_card(content, labels, labelled=labelled, source=Path(dataset.root))}


def _films_job(config: PrecomputeConfig, folder: Path, laq: LoadedLAQ, known: LabelMetadata | None) -> LabelJob:
    laq.require_cameras([])
    source = open_video_source(
        folder,
        image_size=laq.model.config.image_size,
        cache_gib=0,
        fps=config.video_fps,
        skip_bad_videos=config.skip_bad_episodes,
        find_scene_cuts=False,  # scene cuts are searched shard by shard
    )
    if known is None:
        log_offset(laq.model.spec, source.fps, of=source.name)
        files = [folder / name for name in source.episode_names]
        known = _metadata(laq, None, source, films_identity(files, source.bounds, fps=source.fps))
    return LabelJob(
        source=source,
        folder=folder,
        dataset=None,
        labeller=LAQLabeller(laq.model),
        metadata=known,
        batch_size=config.batch_size,
        shard_frames=config.shard_frames,
        find_scene_cuts=config.find_scene_cuts,
        skip_bad_episodes=config.skip_bad_episodes,
    )


def _require_vla_of(vla: LoadedFoundation, laq: LoadedLAQ, config: PrecomputeConfig) -> None:
    """Raise unless the foundation model predicts codes of the LAQ, and a label keeps the codebook of that LAQ."""
    require_same_laq(
        vla.description.laq_fingerprint,
        laq.fingerprint,
        this=f"the foundation model {config.vla_checkpoint}",
        that=str(config.laq_path),
        remedy="name the LAQ whose codes the foundation model predicts, as laq_path",
    )
    vla.description.latent_spec.require_same_codes(laq.model.spec, this="the foundation model", that="the LAQ")


def _metadata(
    laq: LoadedLAQ, vla: LoadedFoundation | None, source: ClipSource, frames: RecordingIdentity
) -> LabelMetadata:
    """Description of the labels of `source`."""
    cameras = source.cameras or ("",)
    return LabelMetadata(
        laq_fingerprint=laq.fingerprint,
        spec=laq.model.spec,
        camera=cameras[0],
        further_cameras=list(cameras[1:]),
        fps=source.fps,
        codebook=laq.model.codebook().cpu().tolist() if laq.model.quantizer.has_codes else [],
        frames=frames.for_labels(),
        vla_fingerprint=None if vla is None else fingerprint(vla.backend.state_dict(), vla.description.config),
        episode_names=list(source.episode_names),
    )
