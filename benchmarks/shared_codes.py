"""Picture of clips that get the same codes, on the data with the large ball: `docs/images/shared_codes.png`.

    python -m benchmarks.shared_codes --dataset_root=outputs/benchmarks/data/six_tasks_30_ball

One quantizer is trained without actions, another one with the actions of all episodes, to which its codes are fitted.
For each, the picture shows clips of different episodes that have the same codes, with the motion of the hand and of the
ball. The dataset is what `hlrp-collect-demos --nuisance=distractor` records.

Shapes: f frames, b clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.laq_nuisance import motion_r2
from benchmarks.running import require_same_settings, run_benchmark, run_command, train_laq
from benchmarks.shared_codes_plot import SharedCodes, shared_codes_figure
from hlrp.data.dataset import open_dataset, read_vectors
from hlrp.data.labels import LatentLabels, load_labels
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.laq.checkpoint import load_laq
from hlrp.storage.files import new_file

_QUANTIZERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "video": ("Learned from video alone", "ball", ()),
    "actions": ("Codes fitted to actions", "hand", ("--labelled_fraction=1", "--fit_codes_to=actions")),
}
"""By the name of its folder, of each quantizer: title in the picture, what moves alike in the clips that are drawn, and
options of the training."""
_CANDIDATES = 10
"""The codes that are drawn are chosen among so many that most episodes share."""
_MOVES_PIXELS = 3.0
"""Only clips in which the hand and the ball both move farther than this in the image are drawn."""
_FRAME_SIZE = (64, 64)
"""Height and width of the frames that are drawn, as they are recorded."""
_MAGENTA_FRAMES = 500
"""Frames from which the camera is computed."""
_FEWEST_PIXELS = 20
"""A ball of fewer magenta pixels is mostly hidden, and does not count for the camera."""


@dataclass
class PictureConfig:
    """Draw clips that share their codes."""

    dataset_root: str = "outputs/benchmarks/data/six_tasks_30_ball"
    """Folder of a LeRobotDataset recorded with `--nuisance=distractor`."""
    folder: Path = Path("outputs/benchmarks/laq/shared_codes")
    """Folder of the two quantizers and their labels, which are made only once."""
    output: Path = Path("docs/images/shared_codes.png")
    """PNG file to write."""
    steps: int = 300
    """Training steps of each quantizer."""
    clips: int = 5
    """Clips that are drawn of each quantizer."""
    quick: bool = False
    """Train for 20 steps only, to see whether everything runs."""


def main(config: PictureConfig) -> None:
    """Train and label what is missing, and draw the picture."""
    steps = 20 if config.quick else config.steps
    require_same_settings(config.folder, {"steps": steps})
    dataset = open_dataset("local/shared_codes", config.dataset_root)
    state, ball = (read_vectors(dataset.meta, name) for name in ("observation.state", "nuisance"))
    if state is None or ball is None:
        raise ValueError(f"{config.dataset_root} has no nuisance column; record it with --nuisance=distractor")
    source = lerobot_source(dataset, cameras=(), image_size=_FRAME_SIZE, cache_gib=0)
    camera = find_camera(source, ball)
    rows: list[SharedCodes] = []
    for name, (title, alike, flags) in _QUANTIZERS.items():
        laq_path, labels_path = config.folder / name, config.folder / f"{name}_labels"
        data = f"--dataset_root={config.dataset_root}"
        train_laq(laq_path, data, f"--steps={steps}", "--preset=small", *flags)
        if not labels_path.exists():
            label = (data, f"--laq_path={laq_path}", f"--output_dir={labels_path}")
            run_command("hlrp.cli.precompute_latent_codes", *label, log=labels_path.with_suffix(".log"))
        laq, labels = load_laq(laq_path), load_labels(labels_path)
        start = labels.valid.nonzero()[:, 0]
        end = start + laq.model.spec.frame_deltas(dataset.fps)[-1]
        codes = F.one_hot(labels.codes[start], laq.model.spec.codebook_size).flatten(1)
        held_out = torch.tensor(laq.extra["sources"][0]["held_out_episodes"])
        is_held_out = torch.isin(labels.episode_index[start], held_out)
        moves = [place[end] - place[start] for place in (state[:, :3], ball)]
        hand_r2, ball_r2 = (motion_r2(codes, move, is_held_out) for move in moves)
        print(f"{name}: R² of the hand's motion {hand_r2:.3f}, of the ball's {ball_r2:.3f}")
        hand, ball_motion = (
            torch.stack([project(camera, place[at]) for at in (start, end)], dim=1) for place in (state[:, :3], ball)
        )
        in_image = {"hand": hand[:, 1] - hand[:, 0], "ball": ball_motion[:, 1] - ball_motion[:, 0]}
        both_move = torch.stack([move.norm(dim=1) > _MOVES_PIXELS for move in in_image.values()]).all(0)
        shared = most_shared(labels, start[both_move], in_image[alike][both_move])
        chosen = spread_first(both_move.nonzero()[:, 0][shared], config.clips)
        rows.append(
            SharedCodes(
                title=title,
                codes=labels.codes[start[chosen[0]]].tolist(),
                frames=source.frames.read(start[chosen[: config.clips], None])[:, 0, 0],
                hand=hand[chosen],
                ball=ball_motion[chosen],
                hand_r2=hand_r2,
                ball_r2=ball_r2,
            )
        )
    with new_file(config.output) as scratch:
        scratch.write_bytes(shared_codes_figure(rows))


def most_shared(labels: LatentLabels, start: Int[Tensor, " b"], moves: Float[Tensor, "b 2"]) -> Int[Tensor, " _"]:
    """Which of the clips at `start` share the codes that are drawn; one clip of each episode, the first one.

    Of the codes that most episodes have, those are taken in whose clips the directions of `moves` agree most.
    """
    episode = labels.episode_index[start].tolist()
    clips_of: dict[tuple[int, ...], dict[int, int]] = {}
    for clip, (number, codes) in enumerate(zip(episode, labels.codes[start].tolist(), strict=True)):
        clips_of.setdefault(tuple(codes), {}).setdefault(number, clip)
    candidates = sorted(clips_of.values(), key=len, reverse=True)[:_CANDIDATES]
    groups = [torch.tensor(list(clips.values())) for clips in candidates]
    return max(groups, key=lambda clips: float(F.normalize(moves[clips], dim=1).mean(0).norm()))


def spread_first(items: Int[Tensor, " b"], count: int) -> Int[Tensor, " b"]:
    """The same items, beginning with `count` of them that are spread evenly."""
    first = torch.linspace(0, len(items) - 1, min(count, len(items))).long()
    is_first = torch.isin(torch.arange(len(items)), first)
    return torch.cat([items[is_first], items[~is_first]])


# ---- Where a point in metres is in the image ----


def find_camera(source: ClipSource, ball: Float[Tensor, "f 3"]) -> Float[Tensor, "3 4"]:
    """Projection of the camera, from the places of the ball in metres and of its magenta pixels in some frames."""
    index = torch.linspace(0, len(ball) - 1, min(_MAGENTA_FRAMES, len(ball))).long()
    red, green, blue = source.frames.read(index[:, None])[:, 0, 0].float().unbind(1)
    magenta = (red > 150) & (green < 120) & (blue > 120)
    count = magenta.flatten(1).sum(1)
    rows, columns = (torch.arange(side) + 0.5 for side in magenta.shape[1:])
    x, y = (magenta.float().sum(axis) @ places / count for axis, places in ((1, columns), (2, rows)))
    is_seen = count >= _FEWEST_PIXELS
    points, pixels = ball[index][is_seen], torch.stack([x, y], dim=1)[is_seen]
    camera = fit_camera(points, pixels)
    # The ball's centre is misjudged where the arm hides a part of it: leave out the worst fifth.
    error = (project(camera, points) - pixels).norm(dim=1)
    return fit_camera(points[error < error.quantile(0.8)], pixels[error < error.quantile(0.8)])


def fit_camera(points: Float[Tensor, "b 3"], pixels: Float[Tensor, "b 2"]) -> Float[Tensor, "3 4"]:
    """Projection that maps `points` to `pixels` with the least error (direct linear transform)."""
    known = torch.cat([points, torch.ones(len(points), 1)], dim=1).double()
    zero, (u, v) = torch.zeros_like(known), pixels.double().split(1, dim=1)
    equations = torch.cat([torch.cat([known, zero, -u * known], 1), torch.cat([zero, known, -v * known], 1)])
    return torch.linalg.svd(equations, full_matrices=False).Vh[-1].reshape(3, 4)


def project(camera: Float[Tensor, "3 4"], points: Float[Tensor, "b 3"]) -> Float[Tensor, "b 2"]:
    """Place of points, in metres, in the image: x to the right and y down, in pixels."""
    seen = torch.cat([points.double(), torch.ones(len(points), 1)], dim=1) @ camera.T
    return (seen[:, :2] / seen[:, 2:]).float()


if __name__ == "__main__":
    run_benchmark(PictureConfig, main)
