"""Model card of a policy: LeRobot's card with corrected sources, and with the dataset's text escaped."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import ModelCard

from hlrp.data.dataset import dataset_name
from hlrp.report.cards.parts import hub_ids, hub_model, is_hub_id, markdown_text


def trained_on(cfg: Any | None, repo_id: str) -> str:
    """Name of the dataset of a run; `local/…` with the folder's name if the dataset is not on the hub."""
    root = None if cfg is None else cfg.dataset.root
    return repo_id if is_hub_id(repo_id) or root is None else dataset_name(None, root)


def safe_metadata(dataset_meta: Any | None, name: str) -> Any | None:
    """Dataset metadata for LeRobot's card template, with texts escaped so that they cannot add markup."""
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
    """Add base model and licence to LeRobot's card, and remove links to a dataset that is not on the hub.

    Args:
        card: Card from LeRobot's template, made with `safe_metadata`.
        name: Name of the dataset, from `trained_on`.
        terms: Licence entries, from `license_entries`.
        base_model: Repository of the model that the policy's weights derive from; None if there is none.
    """
    for key, value in {"datasets": hub_ids([name]) or None, "base_model": base_model, **terms}.items():
        setattr(card.data, key, value)
    if not is_hub_id(name):
        escaped = markdown_text(name)
        link = f"- **Repository:** [{escaped}](https://huggingface.co/datasets/{escaped})"
        text = card.text.replace(link, f"- **Name:** {escaped}, which is not on the hub")
        card.text = re.sub(r"<a class=\"flex\" href=[^>]*visualize_dataset.*?</a>\n?", "", text, flags=re.DOTALL)
    return card


def base_model(vla_checkpoint_path: str | Path | None, backbone: str | None) -> str | None:
    """Repository that a policy's weights derive from: that of its VLA, or else of the VLA's pretrained backbone."""
    return hub_model(vla_checkpoint_path) or hub_model(backbone)
