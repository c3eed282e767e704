from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from damaged_files import damaged
from hlrp.foundation.backends import (
    BackendConfig,
    QwenVLChatBackend,
    QwenVLChatConfig,
    SmolLatentHeadConfig,
    build_backend,
)
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import CARD_FILE, FOUNDATION_FOLDER, load_foundation, read_description
from hlrp.foundation.lora import LoRASettings
from hlrp.foundation.predictions import CodePredictions
from hlrp.latents import LatentSpec
from hlrp.measure.code_accuracy import CodeAccuracy, code_accuracy
from hlrp.report.cards.foundation_card import foundation_card
from hlrp.report.saving import save_foundation
from hlrp.storage.hub import fetch_folder, upload_folder
from hub_cache import cache_model


@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_a_loaded_model_predicts_bit_for_bit_the_same(
    make_backend: Callable[..., QwenVLChatBackend],
    debug_config: QwenVLChatConfig,
    batch: FoundationBatch,
    tmp_path: Path,
    freeze_backbone: bool,
) -> None:
    backend = make_backend(replace(debug_config, freeze_backbone=freeze_backbone))
    save_foundation(backend, tmp_path / "model", laq_fingerprint="abc", extra={"accuracy": 0.5})
    loaded = load_foundation(tmp_path / "model")
    assert loaded.description.laq_fingerprint == "abc"
    assert loaded.description.extra == {"accuracy": 0.5}
    assert loaded.backend.spec == backend.spec
    assert loaded.backend.config_dict() == backend.config_dict()
    assert not loaded.backend.training
    mine, theirs = backend.predict(batch), loaded.backend.predict(batch)
    assert torch.equal(mine.codes, theirs.codes)
    assert torch.equal(mine.log_probs, theirs.log_probs)
    assert torch.equal(mine.features.hidden, theirs.features.hidden)


def test_tied_weights_stay_tied_after_loading(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    loaded = load_foundation(save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")).backend
    assert isinstance(loaded, QwenVLChatBackend)
    assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight


def test_a_checkpoint_holds_nothing_that_runs(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    suffixes = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".md"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # no temporary folder is left


def quality_of_codes(*, right: float) -> CodeAccuracy:
    """Figures of 100 frames of one slot, of which the share `right` is decoded rightly."""
    codes = torch.arange(100)[:, None] % 8
    decoded = torch.where(torch.arange(100)[:, None] < 100 * right, codes, (codes + 1) % 8)
    found = CodePredictions(
        codes, decoded, torch.full((100, 1), 0.5), decoded, torch.ones(100, 1), torch.ones(100).bool()
    )
    return code_accuracy(found, codebook_size=8)


def test_the_card_names_the_codes_and_the_figures(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    quality = quality_of_codes(right=0.25)
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc", extra={"steps": 7}, quality=quality)
    card = (folder / CARD_FILE).read_text()
    for text in ("4 codes of 8", "`abc`", "| decoded accuracy | 0.250 |", "- steps: 7"):
        assert text in card


def test_the_card_names_each_source_once_with_its_share_and_no_local_path(
    backend: QwenVLChatBackend, tmp_path: Path
) -> None:
    sources = [
        {"name": name, "share": share, "episodes": 10, "held_out_episodes": [1, 2]}
        for name, share in (("demos", 0.25), ("lerobot/droid_100", 0.5), ("demos", 0.25))
    ]
    extra = {"sources": sources, "from": "/home/me/secret/run<script>"}
    card = (save_foundation(backend, tmp_path / "model", laq_fingerprint="abc", extra=extra) / CARD_FILE).read_text()
    assert card.count("demos") == 1
    assert "| demos | 50% | 20 | 4 |" in card
    assert "| [lerobot/droid_100](https://huggingface.co/datasets/lerobot/droid_100) | 50% | 10 | 2 |" in card
    assert "- from: run&lt;script&gt;" in card
    assert "/home/me" not in card
    data = ModelCard(card).data
    assert (data.license, data.datasets, data.base_model) == ("apache-2.0", ["lerobot/droid_100"], None)
    assert (data.library_name, data.pipeline_tag) == ("hlrp", "robotics")


def test_a_model_from_the_hub_is_named_as_the_base_and_brings_its_licence(
    backend: QwenVLChatBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "config", replace(backend.config, model_name="nvidia/Cosmos-Reason2-2B"))
    data = ModelCard(foundation_card(backend, laq_fingerprint="", extra={})).data
    assert (data.base_model, data.license) == ("nvidia/Cosmos-Reason2-2B", "other")
    assert data.license_link == "https://huggingface.co/nvidia/Cosmos-Reason2-2B"
    assert ModelCard(foundation_card(backend, laq_fingerprint="", extra={"license": "mit"})).data.license == "mit"
    monkeypatch.setattr(backend, "config", replace(backend.config, model_name=str(tmp_path)))
    assert ModelCard(foundation_card(backend, laq_fingerprint="", extra={})).data.base_model is None


def test_the_hub_takes_whole_folders_only(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    assert fetch_folder(folder, FOUNDATION_FOLDER) == folder
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(filter_repo_objects(files, allow_patterns=list(FOUNDATION_FOLDER.files))) == sorted(files)
    with pytest.raises(ConnectionError, match="the hub did not take the foundation model as me/vla"):
        upload_folder(folder, "me/vla", FOUNDATION_FOLDER, token="hf_none")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="copy the whole folder"):
        upload_folder(folder, "me/vla", FOUNDATION_FOLDER, token="hf_none")


def test_a_model_loads_by_its_name_on_the_hub_as_its_card_says(
    backend: QwenVLChatBackend, batch: FoundationBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    name = cache_model(folder, "someone/vla", tmp_path / "cache", monkeypatch)
    usage = (folder / CARD_FILE).read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"images": batch.images[:1]}
    exec(usage.replace("this folder, or the name of its repository", name), names)
    assert torch.equal(names["vla"].predict(batch).log_probs, backend.predict(batch).log_probs)


@pytest.mark.parametrize("name", ["nowhere", "outputs/vla/missing"])
def test_what_is_neither_a_folder_nor_a_repository_says_how_to_make_one(name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"not a foundation checkpoint \(train one with hlrp-train-foundation\)"
    ):
        load_foundation(name)


def test_saving_again_gives_the_same_files(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    first = save_foundation(backend, tmp_path / "first", laq_fingerprint="abc")
    second = save_foundation(load_foundation(first).backend, tmp_path / "second", laq_fingerprint="abc")
    for path in first.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name


def test_an_existing_folder_is_replaced_only_when_asked(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="old")
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_foundation(backend, folder, laq_fingerprint="new")
    save_foundation(backend, folder, laq_fingerprint="new", overwrite=True)
    assert read_description(folder).laq_fingerprint == "new"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(FileExistsError):
        save_foundation(backend, tmp_path / "precious", laq_fingerprint="new", overwrite=True)


def test_missing_pieces_and_unknown_versions_are_refused(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no foundation\.json"):
        load_foundation(tmp_path)
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    (folder / "model.safetensors").rename(folder / "elsewhere.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_foundation(folder)
    description = json.loads((folder / "foundation.json").read_text())
    (folder / "foundation.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        load_foundation(folder)


def test_weights_that_do_not_fit_are_refused(
    make_backend: Callable[..., QwenVLChatBackend],
    debug_config: QwenVLChatConfig,
    tmp_path: Path,
) -> None:
    small = save_foundation(make_backend(debug_config), tmp_path / "small", laq_fingerprint="abc")
    larger = make_backend(debug_config, spec=LatentSpec(codebook_size=32))
    other = save_foundation(larger, tmp_path / "other", laq_fingerprint="abc")
    (other / "model.safetensors").replace(small / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or is not the file that"):
        load_foundation(small)
    description = json.loads((small / "foundation.json").read_text())
    (small / "foundation.json").write_text(json.dumps({**description, "weights_sha256": None}))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or its weights are not those"):
        load_foundation(small)


@pytest.mark.parametrize("place", [0.5, 0.9])
def test_a_flipped_byte_in_the_weights_is_noticed(backend: QwenVLChatBackend, tmp_path: Path, place: float) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"foundation\.json beside it was written for \(their digests differ\)"):
        load_foundation(folder)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "config.json",
            {"text_config": {"num_hidden_layers": 10**6}},
            r"text_config\.num_hidden_layers must be .* or less",
        ),
        ("config.json", {"text_config": {"hidden_size": 60_000}}, r"describes a model of .* weights or more"),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.P"}}, "is never run"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "is never run"),
        ("chat_template.json", {"chat_template": ""}, "holds no chat template"),
    ],
)
def test_an_asset_that_asks_for_too_much_or_brings_code_is_refused(
    backend: QwenVLChatBackend, tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    path = folder / "backbone" / file
    values = json.loads(path.read_text())
    for name, value in change.items():
        values[name] = {**values[name], **value} if name == "text_config" else value
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_foundation(folder)


def test_a_fingerprint_cannot_put_markup_into_the_card(backend: QwenVLChatBackend) -> None:
    assert "<script>" not in foundation_card(backend, laq_fingerprint="`<script>", extra={"task": "<script>"})


def test_a_damaged_file_is_named(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors")]
    assert len(files) > 4
    for file in files:
        for _ in damaged(file):
            with pytest.raises(ValueError, match=re.escape(str(file))):
                load_foundation(folder)
        file.rename(tmp_path / "aside")
        with pytest.raises(FileNotFoundError, match=f"{re.escape(str(file.parent))} has no {re.escape(file.name)}"):
            load_foundation(folder)
        (tmp_path / "aside").rename(file)


@pytest.mark.parametrize("kind", [QwenVLChatConfig, SmolLatentHeadConfig])
def test_a_model_that_is_nowhere_is_named(kind: type[BackendConfig], tmp_path: Path) -> None:
    for name in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(FileNotFoundError, match=f"model '{re.escape(name)}' is neither the folder of a chat model"):
            build_backend(kind(model_name=name), LatentSpec())


def test_a_setting_that_cannot_be_says_why(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    with pytest.raises(ValueError, match="dtype must be one of float32"):
        load_foundation(folder, overrides={"dtype": "int8"})


def test_a_checkpoint_is_readable_by_whom_the_umask_says(backend: QwenVLChatBackend, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    assert {path.stat().st_mode for path in folder.rglob("*") if path.is_file()} == {usual.stat().st_mode}


@pytest.mark.parametrize("frozen_before", [False, True])
def test_what_was_trained_does_not_decide_what_will_be(
    make_backend: Callable[..., QwenVLChatBackend],
    debug_config: QwenVLChatConfig,
    batch: FoundationBatch,
    tmp_path: Path,
    frozen_before: bool,
) -> None:
    backend = make_backend(replace(debug_config, freeze_backbone=frozen_before))
    for parameter in backend.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    other = load_foundation(folder, overrides={"freeze_backbone": not frozen_before}).backend
    assert torch.equal(other.predict(batch).log_probs, backend.predict(batch).log_probs)
    assert any(p.requires_grad for p in other.parameters())


def test_a_merged_checkpoint_holds_what_the_adapters_learned_and_no_adapter(
    make_backend: Callable[..., QwenVLChatBackend],
    debug_config: QwenVLChatConfig,
    batch: FoundationBatch,
    tmp_path: Path,
) -> None:
    backend = make_backend(replace(debug_config, lora=LoRASettings(rank=2)))
    for name, parameter in backend.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    expected = backend.predict(batch).log_probs
    mid_training = save_foundation(backend, tmp_path / "adapters", laq_fingerprint="abc")
    assert torch.equal(load_foundation(mid_training).backend.predict(batch).log_probs, expected)
    backend.merge_adapters()
    torch.testing.assert_close(backend.predict(batch).log_probs, expected, atol=1e-4, rtol=1e-4)
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    loaded = load_foundation(folder).backend
    assert isinstance(loaded, QwenVLChatBackend)
    assert not loaded.config.lora.is_on
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    assert torch.equal(loaded.predict(batch).log_probs, backend.predict(batch).log_probs)
