"""Which frames of a dataset have actions to learn; the other frames only contribute to the latent loss.

Frames are looked up by the absolute frame index in a batch, because LeRobot's batch converter drops unknown columns.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.dataset import ACTION_VALID, episode_bounds, episode_of_frame, marks_known_actions, read_vectors
from hlrp.data.episode_split import choose_labelled
from hlrp.latents import LatentSpec

logger = logging.getLogger(__name__)


class ActionLabels:
    """Mask of the frames whose action is known. No `nn.Module`: it is neither saved nor broadcast by DDP."""

    def __init__(self, known: Bool[Tensor, " f"]) -> None:
        self.known = known

    @classmethod
    def of_dataset(
        cls,
        dataset_meta: Any,
        in_run: Bool[Tensor, " f"],
        *,
        fraction: float = 1.0,
        episodes: Sequence[int] = (),
        column: str | None = None,
    ) -> ActionLabels:
        """Known actions of the training dataset: those that the options choose and that are finite.

        Episodes that the run leaves out are not chosen among: no weight learns from them, and those that
        `--dataset.eval_split` holds out are there to be measured on.

        Args:
            dataset_meta: Metadata of the dataset.
            in_run: True for frames of the episodes that the run uses.
            fraction: Share of the run's episodes, drawn with a fixed seed; at least one episode unless it is 0.
            episodes: Episodes, as an alternative to `fraction`; empty if not used.
            column: Boolean dataset column, true for known actions, as an alternative to `fraction`. None: the column
                `ACTION_VALID` if the dataset has it; `fraction` and `episodes` then choose among these actions.

        Raises:
            ValueError: If several alternatives are used, the run lacks the episodes, the dataset lacks the column, or
                no action is known.
        """
        if sum((fraction < 1, len(episodes) > 0, column is not None)) > 1:
            raise ValueError(
                "name the frames with actions in one way: labelled_fraction, labelled_episodes or action_valid_column"
            )
        episode = episode_of_frame(episode_bounds(dataset_meta))
        known = _finite_actions(dataset_meta, in_run)
        if column is None and marks_known_actions(dataset_meta):
            logger.info(f"known actions are those that the dataset's column {ACTION_VALID!r} marks")
            known = known & _column(dataset_meta, ACTION_VALID)
        if column is not None:
            known = known & _column(dataset_meta, column)
        elif len(episodes):
            chosen = _labelled_episodes(dataset_meta, episodes, episode[in_run].unique())
            known = known & (torch.isin(episode, chosen) | ~in_run)
        elif fraction == 0:
            known = torch.zeros_like(known)
        elif fraction < 1:
            chosen = choose_labelled(episode[in_run & known].unique(), fraction=fraction, seed=0)
            known = known & (torch.isin(episode, chosen) | ~in_run)
        if fraction > 0 and not (known & in_run).any():
            raise ValueError(
                f"not one frame of the {len(episode[in_run].unique())} episodes of this run has an action to learn "
                "from; choose episodes or a column with known, finite actions, or train the latents alone with "
                "--policy.labelled_fraction=0"
            )
        return cls(known)

    def require_some_within_clips(self, dataset_meta: Any, in_run: Bool[Tensor, " f"], spec: LatentSpec) -> None:
        """Check that at least one frame has both a known action and latent codes.

        A frame has latent codes if the clip that starts there does not leave its episode.

        Raises:
            ValueError: If there is no such frame.
        """
        labelled = clip_is_valid(episode_bounds(dataset_meta), spec.frame_deltas(float(dataset_meta.fps)))
        known = self.known & in_run
        if known.any() and not (known & labelled).any():
            raise ValueError(
                f"none of the {int(known.sum())} frames with a known action has a latent code, since the clip of "
                f"{spec.frame_offset_s:g} s leaves its episode; choose longer episodes, or a LAQ of a shorter offset"
            )

    def lookup(self, index: Int[Tensor, " b"], steps: int) -> Bool[Tensor, "b h"]:
        """Whether the actions of frames `index` and the next `steps` - 1 frames are known, on the device of `index`."""
        if self.known.device != index.device:
            self.known = self.known.to(index.device)
        # Places after the dataset's last frame are clamped; `action_is_pad` masks them.
        place = index[:, None] + torch.arange(steps, device=index.device)
        return self.known[place.clamp_max(len(self.known) - 1)]


def _finite_actions(dataset_meta: Any, in_run: Bool[Tensor, " f"]) -> Bool[Tensor, " f"]:
    """Mask of frames with a finite action; true everywhere if the data is not on this disk, as in streaming."""
    actions = read_vectors(dataset_meta, ACTION)
    if actions is None:
        return torch.ones_like(in_run)
    finite = actions.isfinite().all(1)
    unknown = int((in_run & ~finite).sum())
    if unknown:
        logger.warning(
            f"{unknown} of the {int(in_run.sum())} frames of this run have an action that is NaN or infinite: no "
            "action is learnt there"
        )
    return finite


def _labelled_episodes(dataset_meta: Any, episodes: Sequence[int], of_run: Int[Tensor, " _"]) -> Int[Tensor, " _"]:
    chosen = torch.tensor(list(episodes), dtype=torch.int64)
    last = dataset_meta.total_episodes - 1
    lost = [episode for episode in episodes if not 0 <= episode <= last]
    if lost:
        raise ValueError(f"labelled_episodes has {lost}, and the dataset episodes 0 to {last}; choose among those")
    unused = chosen[~torch.isin(chosen, of_run)].tolist()
    if unused:
        raise ValueError(
            f"labelled_episodes has {unused}, which this run does not train on; choose among its episodes "
            f"{of_run.tolist()}"
        )
    return chosen


def _column(dataset_meta: Any, name: str) -> Bool[Tensor, " f"]:
    if name not in dataset_meta.features:
        raise ValueError(
            f"the dataset has no column {name!r} that says where actions are known; name another with "
            "--policy.action_valid_column, or set it to null where all finite actions are known. It has "
            f"{', '.join(dataset_meta.features)}"
        )
    feature = dataset_meta.features[name]
    if feature["dtype"] != "bool" or tuple(feature["shape"]) != (1,):
        raise ValueError(
            f"action_valid_column={name} has dtype {feature['dtype']} and shape {tuple(feature['shape'])}, expected "
            "one bool per frame that is true where its action is known"
        )
    values = read_vectors(dataset_meta, name)
    if values is None:
        raise ValueError(
            f"action_valid_column={name} is read from the data files, and {Path(dataset_meta.root) / 'data'} has none; "
            "train from a local copy of the dataset"
        )
    return values[:, 0] == 1
