"""A quantizer is one file and a registry line, and so is a backend; docs/extending.md shows the same code."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from hlrp.foundation.backends import BackendConfig, build_backend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation
from hlrp.foundation.config import BACKENDS, register_backend
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.config import QUANTIZERS, debug, register_quantizer
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions, LatentSpec
from hlrp.report.saving import save_foundation, save_laq

DOCS = Path(__file__).parents[1] / "docs" / "extending.md"
SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=4)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The code blocks of docs/extending.md as modules that can be imported; their registrations end with the test."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, code in blocks:
        monkeypatch.delitem(sys.modules, name, raising=False)  # an import registers its class once more in each test
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    known = dict(QUANTIZERS), dict(BACKENDS), dict(BackendConfig._choice_registry)
    yield tmp_path
    for registry, before in zip((QUANTIZERS, BACKENDS, BackendConfig._choice_registry), known, strict=True):
        registry.clear()
        registry.update(before)


def imported(name: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(name)


def test_a_quantizer_in_one_file_trains_in_a_laq_and_is_saved(examples: Path, tmp_path: Path) -> None:
    register_quantizer("nearest", "nearest_quantizer:NearestQuantizer")
    model = LatentActionQuantizer(replace(debug(), spec=SPEC, quantizer="nearest")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    clips = torch.rand(8, 2, 1, 3, 32, 32)
    losses = []
    for _ in range(5):
        result = model(clips)
        assert result.frames is not None
        loss = (result.frames - clips[:, 1:]).square().mean() + result.quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    folder = save_laq(model.eval(), tmp_path / "laq", cameras=[], quality=None, extra={})
    loaded = load_laq(folder).model
    assert type(loaded.quantizer).__module__ == "nearest_quantizer"
    assert torch.equal(loaded.encode(clips).codes, model.encode(clips).codes)
    assert loaded.codebook().shape == (2, 4, 4)
    quantized = loaded.quantizer(torch.randn(64, 2, 4))
    assert torch.equal(loaded.quantizer.lookup(quantized.ids), quantized.vectors)


def test_a_backend_in_one_module_trains_in_stage_2_and_is_saved(examples: Path, tmp_path: Path) -> None:
    module = imported("pooled_backend")
    config = module.PooledConfig(image_size=(16, 16))
    backend = build_backend(config, SPEC)
    labels = LatentActions.of_codes(torch.randint(4, (4, 2)))
    batch = FoundationBatch(torch.rand(4, 1, 3, 32, 32), ["Open a drawer"] * 4, labels)
    before = {name: value.clone() for name, value in backend.state_dict().items()}
    trainer = pl.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(VLABackendModule(backend), DataLoader([batch, batch], batch_size=None))  # pyright: ignore[reportArgumentType]
    assert any(not torch.equal(value, before[name]) for name, value in backend.state_dict().items())
    folder = save_foundation(backend, tmp_path / "vla", laq_fingerprint="")
    loaded = load_foundation(folder).backend
    assert loaded.backend_type == "pooled"
    assert torch.equal(loaded.predict(batch).codes, backend.predict(batch).codes)
    assert loaded.sample(batch, num_samples=3).codes.shape == (4, 3, 2)


def test_own_parts_train_by_the_commands_functions(
    examples: Path, image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(image_dataset_root, "outputs/demos")
    imported("own_parts")
    assert load_laq("outputs/laq").model.config.quantizer == "nearest"
    assert load_foundation("outputs/foundation").backend.backend_type == "pooled"


def test_a_laq_is_built_and_saved_without_a_command(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = imported("own_laq")
    assert module.codes.shape == (8, 1, 2)


def test_a_policy_and_a_command_accept_the_registered_backend(examples: Path) -> None:
    from lerobot_policy_felix_bundle.policies.common.vla import new_vla
    from lerobot_policy_felix_bundle.policies.hlrp_vla_direct.configuration_hlrp_vla_direct import HLRPVLADirectConfig

    imported("pooled_backend")
    config = HLRPVLADirectConfig(vla_backend="pooled", image_size=(16, 16))
    backend = new_vla(config, SPEC, lightning=None)
    assert (backend.backend_type, backend.repeated_blocks) == ("pooled", ())


def test_names_that_are_taken_and_paths_without_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match="'fsq' already belongs to"):
        register_quantizer("fsq", "my_module:MyQuantizer")
    with pytest.raises(ValueError, match="must be given as 'module:Class'"):
        register_quantizer("mine", "my_module.MyQuantizer")
    with pytest.raises(ValueError, match="already belongs to"):
        register_backend("qwen3vl_chat", "my_module:MyBackend")(BackendConfig)
    assert "mine" not in QUANTIZERS
