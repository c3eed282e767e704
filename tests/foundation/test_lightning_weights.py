from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.lightning_weights import load_lightning_weights
from hlrp.latents import LatentSpec

Make = Callable[..., QwenVLChatBackend]


@pytest.mark.parametrize("layout", ["backend.", "vla_model."])
def test_weights_of_either_layout_make_the_same_model(
    make_backend: Make, batch: FoundationBatch, tmp_path: Path, layout: str
) -> None:
    trained, fresh = make_backend(scale=5), make_backend(scale=1)
    module = trained if layout == "backend." else trained.model
    state = {f"{layout}{name}": value for name, value in module.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    load_lightning_weights(fresh, tmp_path / "last.ckpt")
    assert torch.equal(fresh.predict(batch).log_probs, trained.predict(batch).log_probs)


def test_a_tied_head_may_be_stored_once(make_backend: Make, batch: FoundationBatch, tmp_path: Path) -> None:
    trained, fresh = make_backend(scale=5), make_backend(scale=1)
    state = {f"vla_model.{name}": value for name, value in trained.model.state_dict().items() if "lm_head" not in name}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    load_lightning_weights(fresh, tmp_path / "last.ckpt")
    assert torch.equal(fresh.predict(batch).log_probs, trained.predict(batch).log_probs)


class Surprise:
    """What a pickle could run."""


def test_what_is_no_such_checkpoint_is_refused_in_one_sentence(make_backend: Make, tmp_path: Path) -> None:
    backend = make_backend()
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_lightning_weights(backend, tmp_path / "none.ckpt")
    torch.save({"state_dict": {"encoder.weight": torch.ones(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="has no weights named backend"):
        load_lightning_weights(backend, tmp_path / "other.ckpt")
    torch.save({"state_dict": Surprise()}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match="without running code"):
        load_lightning_weights(backend, tmp_path / "code.ckpt")
    larger = make_backend(spec=LatentSpec(codebook_size=32))
    torch.save({"state_dict": {f"backend.{n}": v for n, v in larger.state_dict().items()}}, tmp_path / "larger.ckpt")
    with pytest.raises(ValueError, match="was trained with another model, action tokens or codebook size"):
        load_lightning_weights(backend, tmp_path / "larger.ckpt")
