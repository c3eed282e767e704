"""Speed of our clip loader, compared with torchcodec alone decoding the same frames.

    python -m benchmarks.laq_loader --video_dir=films
    python -m benchmarks.laq_loader --dataset_root=outputs/demos

Two access patterns are measured: batches of random clips of two frames, as in training, and runs of consecutive clips,
as in labelling. The decoder is given the sorted frame times of each file; the loader also finds the files, resizes the
frames and groups them into clips. Loader and decoder are called in turn and medians are compared, so that other work on
the machine slows both alike.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import draccus
import torch
from jaxtyping import Int
from torch import Tensor

from hlrp.data.source_config import SourceConfig
from hlrp.data.training_sources import open_source
from hlrp.data.video_files import VideoFiles


@dataclass
class LoaderBenchmarkConfig:
    """Compare the clip loader with the bare decoder."""

    dataset_root: str | None = None
    """Folder of a LeRobotDataset with a video camera."""
    camera: str | None = None
    """Dataset key of the camera; not needed if the dataset has only one camera."""
    video_dir: str | None = None
    """Folder of plain videos, instead of a dataset."""
    image_size: int = 64
    """Side of the frames the loader returns, in pixels."""
    batch_size: int = 64
    """Clips of two frames that are read together."""
    offset: int = 3
    """Number of frames from the first to the second frame of a clip."""
    batches: int = 4
    """Number of different batches in a round."""
    rounds: int = 5
    """Number of rounds that are measured."""


def run(
    dataset_root: str | None = None,
    video_dir: str | None = None,
    *,
    camera: str | None = None,
    image_size: int = 64,
    batch_size: int = 64,
    offset: int = 3,
    batches: int = 4,
    rounds: int = 5,
) -> dict[str, dict[str, float]]:
    """Frames per second of the loader and of the decoder, and their ratio, for random and for sequential clips.

    Raises:
        ValueError: If the source holds no videos, or they are shorter than a batch.
    """
    config = SourceConfig(dataset_root=dataset_root, video_dir=video_dir, cameras=[] if camera is None else [camera])
    frames = open_source(config, image_size=(image_size, image_size), cache_gib=0).frames
    if not isinstance(frames, VideoFiles):
        raise ValueError("the loader is measured on videos, and this dataset stores images")
    # Imported here, since only this section needs torchcodec, whose import fails where FFmpeg's libraries are missing.
    from torchcodec.decoders import VideoDecoder

    last = len(frames) - batch_size - offset
    if last < batches:
        raise ValueError(f"need at least {batch_size + offset + batches} frames of video, got {len(frames)}")
    generator = torch.Generator().manual_seed(0)
    pair, consecutive = torch.tensor([0, offset]), torch.arange(batch_size)[:, None]
    firsts = torch.linspace(0, last, batches).long()
    indices: dict[str, list[Int[Tensor, "b 2"]]] = {
        "random": [torch.randint(last, (batch_size, 1), generator=generator) + pair for _ in firsts],
        "sequential": [first + consecutive + pair for first in firsts],
    }
    decoders: dict[str, VideoDecoder] = {}

    def decode(index: Int[Tensor, "b 2"]) -> None:
        for path, _, seconds in frames.places(index.unique()):
            if str(path) not in decoders:
                decoders[str(path)] = VideoDecoder(path, seek_mode="approximate" if dataset_root else "exact")
            decoders[str(path)].get_frames_played_at(seconds)

    return {access: _compare(frames.read, decode, batch, rounds) for access, batch in indices.items()}


def _compare(
    load: Callable[[Int[Tensor, "b 2"]], object],
    decode: Callable[[Int[Tensor, "b 2"]], object],
    indices: list[Int[Tensor, "b 2"]],
    rounds: int,
) -> dict[str, float]:
    times: dict[str, list[float]] = {"loader": [], "decoder": []}
    for measured in range(-1, rounds):  # the first round opens the files
        for index in indices:
            for name, read in (("loader", load), ("decoder", decode)):
                start = time.perf_counter()
                read(index)
                if measured >= 0:
                    times[name].append(time.perf_counter() - start)
    loader, decoder = (indices[0].numel() / statistics.median(values) for values in times.values())
    return {"loader_fps": loader, "decoder_fps": decoder, "ratio": loader / decoder}


def main() -> None:
    """Entry point."""
    torch.set_num_threads(1)
    config = draccus.parse(LoaderBenchmarkConfig)
    print(json.dumps(run(**vars(config)), indent=2))


if __name__ == "__main__":
    main()
