"""HLRP: latent actions learned from video, foundation VLAs that predict them, and LeRobot policies built on these.

The public names of the library are listed here. Each is imported from its module when it is first used, so that
`import hlrp` and the help of every command stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hlrp.data.labels import LatentLabels, load_labels
    from hlrp.foundation.batch import FoundationBatch
    from hlrp.foundation.checkpoint import load_foundation
    from hlrp.laq.checkpoint import load_laq
    from hlrp.laq.model import LatentActionQuantizer
    from hlrp.latents import LatentActions, LatentSpec
    from hlrp.report.saving import save_foundation, save_laq
    from hlrp.storage.hub import upload_folder

__version__ = "0.1.0"

_PLACES = {
    "FoundationBatch": "hlrp.foundation.batch",
    "LatentActionQuantizer": "hlrp.laq.model",
    "LatentActions": "hlrp.latents",
    "LatentLabels": "hlrp.data.labels",
    "LatentSpec": "hlrp.latents",
    "load_foundation": "hlrp.foundation.checkpoint",
    "load_labels": "hlrp.data.labels",
    "load_laq": "hlrp.laq.checkpoint",
    "save_foundation": "hlrp.report.saving",
    "save_laq": "hlrp.report.saving",
    "upload_folder": "hlrp.storage.hub",
}

__all__ = [
    "FoundationBatch",
    "LatentActionQuantizer",
    "LatentActions",
    "LatentLabels",
    "LatentSpec",
    "load_foundation",
    "load_labels",
    "load_laq",
    "save_foundation",
    "save_laq",
    "upload_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
