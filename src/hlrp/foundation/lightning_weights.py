"""Load the weights of a Lightning checkpoint (.ckpt) into a foundation model.

The file is a pickle and is read with `weights_only=True`, so that it cannot run code. Two layouts are known by the
prefix of their weight names: `backend.`, written by `hlrp-train-foundation`, and `vla_model.`, written by the Lightning
module of an earlier version; see `FoundationBackend.legacy_model`.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from hlrp.foundation.backends.interfaces import FoundationBackend
from hlrp.storage.artefacts import read_state_dict

SUFFIX = ".ckpt"
OUR_PREFIX, EARLIER_PREFIX = "backend.", "vla_model."


def load_lightning_weights(backend: FoundationBackend, path: Path | str) -> None:
    """Fill `backend` from a Lightning checkpoint, strictly, in place.

    Args:
        backend: The architecture the checkpoint was trained with: same model, action tokens and codebook.
        path: The `.ckpt` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has no weights of a known layout, or weights of another architecture.
    """
    path = Path(path)
    state = read_state_dict(path, expected="a Lightning checkpoint that can be read without running code")
    target, weights = _matched(backend, state, path)
    try:
        target.load_state_dict(_with_tied(target, weights), strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(
            f"{path} was trained with another model, action tokens or codebook size than this one: {first}"
        ) from error


def _matched(backend: FoundationBackend, state: dict[str, Tensor], path: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    ours, earlier = (
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for prefix in (OUR_PREFIX, EARLIER_PREFIX)
    )
    if ours:
        return backend, ours
    if not earlier:
        raise ValueError(f"{path} has no weights named {OUR_PREFIX}… or {EARLIER_PREFIX}…; name a stage-2 checkpoint")
    if backend.legacy_model is None:
        raise ValueError(
            f"{path} has the layout of an earlier version, which a {backend.backend_type} backend cannot read; name "
            "another checkpoint"
        )
    return backend.legacy_model, earlier


def _with_tied(target: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Complete `weights` with tied names: a file may store only one of the names that share memory in `target`."""
    places: dict[int, list[str]] = {}
    for name, value in target.state_dict(keep_vars=True).items():
        places.setdefault(value.data_ptr(), []).append(name)
    found = dict(weights)
    for names in places.values():
        known = [name for name in names if name in weights]
        if known:
            found |= {name: weights[known[0]] for name in names if name not in weights}
    return found
