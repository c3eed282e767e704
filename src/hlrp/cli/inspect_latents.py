"""`hlrp-inspect-latents`: the quality card of a trained LAQ on any dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import draccus

from hlrp.cli.common import choose_device, run_cli
from hlrp.cli.train_laq import evaluate_laq, quality_table
from hlrp.data.clips import split_episodes
from hlrp.data.dataset import episode_bounds, open_dataset, require_camera
from hlrp.data.frames import open_frames
from hlrp.files import write_json
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.quality import LAQQuality


@dataclass
class InspectConfig:
    """Measure a LAQ on held-out episodes of a dataset; it need not be the one it was trained on."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint."""
    dataset_repo_id: str = "local/hlrp_demos"
    """Repo id of the dataset."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    camera: str | None = None
    """Dataset key of the camera; default: the one the LAQ was trained on."""
    output: str | None = None
    """Write the figures to this JSON file as well."""
    held_out: float = 0.1
    """Share of episodes that score the probes; with the seed of training, the very episodes it held out."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""


def inspect_latents(config: InspectConfig) -> LAQQuality:
    """Measure and print; write where asked."""
    laq = load_laq(config.laq_path, choose_device(config.device))
    if config.output is not None and Path(config.output).exists():
        raise FileExistsError(f"{config.output} already exists; remove it or choose another file")
    dataset = open_dataset(config.dataset_repo_id, config.dataset_root)
    camera = require_camera(dataset.meta, config.camera or laq.camera)
    frames = open_frames(dataset, camera, laq.model.config.image_size, cache_gib=config.cache_gib)
    train, held_out = split_episodes(len(episode_bounds(dataset.meta)), held_out=config.held_out, seed=config.seed)
    quality = evaluate_laq(laq.model, dataset, frames, train, held_out, seed=config.seed)
    print(quality_table(quality, laq.model.spec))
    if config.output is not None:
        write_json(config.output, quality.to_dict())
    return quality


def main() -> None:
    """Entry point."""
    run_cli(lambda: inspect_latents(draccus.parse(InspectConfig)))


if __name__ == "__main__":
    main()
