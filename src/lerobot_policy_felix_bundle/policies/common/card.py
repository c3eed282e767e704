"""The model card of a policy: LeRobot's, with the right sources, and without markup from the dataset's text."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import ModelCard

from hlrp.data.dataset import dataset_name
from hlrp.report.cards.parts import hub_ids, hub_model, is_hub_id, markdown_text


def trained_on(cfg: Any | None, repo_id: str) -> str:
    """Name of the dataset of a run; `local/…` stands for recordings that are on no hub, named by their folder."""
    root = None if cfg is None else cfg.dataset.root
    return repo_id if is_hub_id(repo_id) or root is None else dataset_name(None, root)


def safe_metadata(dataset_meta: Any | None, name: str) -> Any | None:
    """What LeRobot's template reads of a dataset, as text that shows as it is."""
    if dataset_meta is None:
        return None
    return SimpleNamespace(
        repo_id=markdown_text(name),
        total_episodes=dataset_meta.total_episodes,
        total_frames=dataset_meta.total_frames,
        fps=dataset_meta.fps,
        tasks=SimpleNamespace(index=[markdown_text(task) for task in dataset_meta.tasks.index]),
        robot_type=None if dataset_meta.robot_type is None else markdown_text(dataset_meta.robot_type),
        camera_keys=[markdown_text(key) for key in dataset_meta.camera_keys],
    )


def finished(card: ModelCard, *, name: str, terms: dict[str, str], base_model: str | None) -> ModelCard:
    """LeRobot's card with the sources that are on the hub alone, the base model and its licence.

    Args:
        card: From LeRobot's template, with `safe_metadata`.
        name: From `trained_on`.
        terms: From `license_entries`.
        base_model: Repository of the model whose weights these derive from.
    """
    for key, value in {"datasets": hub_ids([name]) or None, "base_model": base_model, **terms}.items():
        setattr(card.data, key, value)
    if not is_hub_id(name):
        shown = markdown_text(name)
        link = f"- **Repository:** [{shown}](https://huggingface.co/datasets/{shown})"
        text = card.text.replace(link, f"- **Name:** {shown}, which is not on the hub")
        card.text = re.sub(r"<a class=\"flex\" href=[^>]*visualize_dataset.*?</a>\n?", "", text, flags=re.DOTALL)
    return card


def base_model(vla_checkpoint_path: str | Path | None, backbone: str | None) -> str | None:
    """Repository that a policy derives from: its VLA's, else that of the VLA's pretrained backbone."""
    return hub_model(vla_checkpoint_path) or hub_model(backbone)
