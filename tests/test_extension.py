"""Extensions change no existing file of the project; docs/extending.md shows the code that these tests run."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from torch.utils.data import DataLoader

from hlrp.experts.registry import EXPERTS, register_expert
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
from policy_workshop import SMALL, Workshop, make_workshop

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs" / "extending.md"
SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=4)
REGISTRIES: tuple[dict[str, Any], ...] = (
    QUANTIZERS,
    BACKENDS,
    EXPERTS,
    BackendConfig._choice_registry,
    PreTrainedConfig._choice_registry,
)


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Code blocks of docs/extending.md by module name, which can be imported; registrations end with the test."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name, code in blocks:
        monkeypatch.delitem(sys.modules, name, raising=False)  # an import registers its class once more in each test
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    known = [dict(registry) for registry in REGISTRIES]
    yield dict(blocks)
    for registry, before in zip(REGISTRIES, known, strict=True):
        registry.clear()
        registry.update(before)
    for name, _ in blocks:
        sys.modules.pop(name, None)


def changed_files(examples: dict[str, str], *modules: str) -> int:
    """Number of existing files of the project that name the classes or functions of an example.

    The example works in the test, so every file that had to change for it would have to name it.
    """
    names = [*modules]
    for module in modules:
        names += re.findall(r"^(?:class|def) (\w+)", examples[module], flags=re.MULTILINE)
    assert len(names) > len(modules)
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    return sum(bool(pattern.search(path.read_text(encoding="utf-8"))) for path in (PROJECT / "src").rglob("*.py"))


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def workshop(image_dataset_root: Path, tmp_path: Path) -> Workshop:
    return make_workshop(image_dataset_root, tmp_path / "workshop")


def test_a_quantizer_in_one_file_trains_in_a_laq_and_is_saved(examples: dict[str, str], tmp_path: Path) -> None:
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
    assert torch.equal(loaded.encode(clips).require_codes(), model.encode(clips).require_codes())
    assert loaded.codebook().shape == (2, 4, 4)
    quantized = loaded.quantizer(torch.randn(64, 2, 4))
    assert torch.equal(loaded.quantizer.lookup(quantized.ids), quantized.vectors)
    assert changed_files(examples, "nearest_quantizer") == 0


def test_a_backend_in_one_module_trains_in_stage_2_and_is_saved(examples: dict[str, str], tmp_path: Path) -> None:
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
    assert changed_files(examples, "pooled_backend") == 0


def test_own_parts_train_by_the_commands_functions(
    examples: dict[str, str], image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(image_dataset_root, "outputs/demos")
    imported("own_parts")
    assert load_laq("outputs/laq").model.config.quantizer == "nearest"
    assert load_foundation("outputs/foundation").backend.backend_type == "pooled"


def test_a_laq_is_built_and_saved_without_a_command(
    examples: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = imported("own_laq")
    assert module.codes.shape == (8, 1, 2)


def test_a_policy_and_a_command_accept_the_registered_backend(examples: dict[str, str]) -> None:
    from lerobot_policy_felix_bundle.policies.common.vla import new_vla
    from lerobot_policy_felix_bundle.policies.hlrp_vla_direct.configuration_hlrp_vla_direct import HLRPVLADirectConfig

    imported("pooled_backend")
    config = HLRPVLADirectConfig(vla_backend="pooled", image_size=(16, 16))
    backend = new_vla(config, SPEC, lightning=None)
    assert (backend.backend_type, backend.repeated_blocks) == ("pooled", ())


def train_save_and_load(workshop: Workshop, kind: str, folder: Path, *, part: str, **changes: str) -> None:
    """One training step changes the submodule `part`, and the policy acts alike after it is saved and loaded."""
    policy = workshop.policy(kind, **changes).train()
    before = {name: value.clone() for name, value in getattr(policy, part).state_dict().items()}
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-2)
    loss, values = policy(workshop.batch([3, 20]))
    loss.backward()
    optimizer.step()
    assert values["action_loss"] > 0
    assert all(not torch.equal(value, before[name]) for name, value in getattr(policy, part).state_dict().items())
    batch = workshop.batch([3])
    actions = policy.eval().predict_action_chunk(batch)
    policy.save_pretrained(folder)
    assert torch.equal(type(policy).from_pretrained(folder).eval().predict_action_chunk(batch), actions)


def test_an_expert_in_one_file_trains_in_a_policy_and_is_saved(
    examples: dict[str, str], workshop: Workshop, tmp_path: Path
) -> None:
    register_expert("linear", imported("linear_expert").LinearExpert)
    train_save_and_load(workshop, "hlrp_action_expert_latent", tmp_path / "saved", part="expert", expert="linear")
    assert changed_files(examples, "linear_expert") == 0


def test_a_policy_in_three_files_trains_and_is_saved(
    examples: dict[str, str], workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported("configuration_hlrp_example")
    monkeypatch.setitem(SMALL, "hlrp_example", {})
    train_save_and_load(workshop, "hlrp_example", tmp_path / "saved", part="head")
    before, after = make_pre_post_processors(workshop.config("hlrp_example"))
    assert before.steps
    assert after.steps
    modules = [f"{part}_hlrp_example" for part in ("configuration", "modeling", "processor")]
    assert changed_files(examples, *modules) == 0


def test_names_that_are_taken_and_paths_without_a_class_are_refused() -> None:
    with pytest.raises(ValueError, match="'fsq' already belongs to"):
        register_quantizer("fsq", "my_module:MyQuantizer")
    with pytest.raises(ValueError, match="must be given as 'module:Class'"):
        register_quantizer("mine", "my_module.MyQuantizer")
    with pytest.raises(ValueError, match="already belongs to"):
        register_backend("qwen3vl_chat", "my_module:MyBackend")(BackendConfig)
    with pytest.raises(ValueError, match="'flow' already belongs to FlowExpert; choose another one"):
        register_expert("flow", EXPERTS["diffusion"])
    assert "mine" not in QUANTIZERS
