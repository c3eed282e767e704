"""Quantizers on the hub, as far as a machine without a network can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from torch import Tensor

from hlrp.laq.checkpoint import CARD_FILE, LAQ_FOLDER, load_laq
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.code_usage import CodeUsage
from hlrp.measure.laq_quality import LAQQuality
from hlrp.report.saving import save_laq
from hlrp.storage.hub import fetch_folder, upload_folder
from hub_cache import cache_model
from unmeasured_quality import UNMEASURED

CAMERA = "observation.images.top"


@pytest.fixture
def quality() -> LAQQuality:
    """A card of which only codes were measured."""
    codes = CodeUsage(
        perplexity=[1.9],
        dead_codes=[0],
        code_usage=[[0.4, 0.6]],
        tuple_entropy_bits=0.97,
        tuple_entropy_bits_max=1.0,
        distinct_tuples=2,
    )
    return replace(UNMEASURED, codes=codes, episodes=3)


def test_a_saved_quantizer_comes_back_from_its_folder(
    model: LatentActionQuantizer, clips: Tensor, tmp_path: Path
) -> None:
    again = load_laq(save_laq(model, tmp_path / "laq")).model
    assert torch.equal(again.encode(clips).require_codes(), model.encode(clips).require_codes())
    assert not again.training


def test_the_card_shows_the_figures_and_three_lines_of_usage(
    fsq_model: LatentActionQuantizer, quality: LAQQuality, tmp_path: Path
) -> None:
    folder = save_laq(fsq_model, tmp_path / "laq", cameras=[CAMERA], quality=quality, extra={"steps": 3})
    card = (folder / CARD_FILE).read_text()
    assert "| entropy of code tuples | 1.0 of 1.0 bits |" in card
    assert "| perplexity per slot | 1.9 of 2 | good |" in card
    assert "Over 7 clips of 3 episodes" in card
    assert f"`{CAMERA}`" in card
    assert "- steps: 3" in card
    usage = card.partition("```python\n")[2].partition("```")[0].splitlines()
    assert len(usage) == 3
    assert "(batch, 2, 1, 3, 32, 32)" in usage[2]


def test_the_card_of_a_mixture_names_its_sources_and_the_licence(
    fsq_model: LatentActionQuantizer, tmp_path: Path
) -> None:
    sources = [
        {"name": "films | <b>", "share": 0.75, "episodes": 4, "held_out_episodes": [0]},
        {"name": "me/demos", "share": 0.25, "episodes": 9, "held_out_episodes": [1]},
    ]
    extra = {"sources": sources, "license": "cc-by-4.0", "action_statistics": {"mean": [0.5]}}
    card = (save_laq(fsq_model, tmp_path / "laq", extra=extra) / CARD_FILE).read_text()
    assert "| films &#124; &lt;b&gt; | 75% | 4 | 1 |" in card
    assert "statistics" not in card
    data = ModelCard(card).data
    assert (data.license, data.datasets, data.pipeline_tag) == ("cc-by-4.0", ["me/demos"], "robotics")
    plain = (save_laq(fsq_model, tmp_path / "plain", extra={"sources": "my films"}) / CARD_FILE).read_text()
    assert "- sources: my films" in plain
    assert (ModelCard(plain).data.license, ModelCard(plain).data.datasets) == ("apache-2.0", None)


def test_the_usage_of_the_card_runs(fsq_model: LatentActionQuantizer, clips: Tensor, tmp_path: Path) -> None:
    folder = save_laq(fsq_model, tmp_path / "laq")
    usage = (folder / CARD_FILE).read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, object] = {"frames": clips}
    exec(usage.replace("this folder, or the name of its repository", str(folder)), names)
    assert torch.equal(names["latents"].codes, fsq_model.encode(clips).require_codes())  # pyright: ignore[reportAttributeAccessIssue]


def test_a_card_without_figures_says_so(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    card = (save_laq(fsq_model, tmp_path / "laq") / CARD_FILE).read_text()
    assert "Not measured yet; `hlrp-inspect-latents` does." in card


def test_what_would_be_uploaded_is_the_whole_checkpoint(
    fsq_model: LatentActionQuantizer, quality: LAQQuality, tmp_path: Path
) -> None:
    folder = save_laq(fsq_model, tmp_path / "laq", cameras=[CAMERA], quality=quality, extra={})
    assert {path.name for path in folder.iterdir()} == set(LAQ_FOLDER.files)


def test_a_folder_stays_where_it_is(tmp_path: Path) -> None:
    assert fetch_folder(tmp_path, LAQ_FOLDER) == tmp_path


def test_a_quantizer_loads_by_its_name_on_the_hub(
    fsq_model: LatentActionQuantizer, clips: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = cache_model(save_laq(fsq_model, tmp_path / "laq"), "someone/laq", tmp_path / "cache", monkeypatch)
    assert torch.equal(load_laq(name).model.encode(clips).require_codes(), fsq_model.encode(clips).require_codes())


@pytest.mark.parametrize("name", ["outputs/laq/missing", "../laq", "a b", "laq"])
def test_what_is_neither_a_folder_nor_a_repository_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is neither a folder nor the name of a hub repository$"):
        fetch_folder(name, LAQ_FOLDER)


def test_without_a_network_fetching_fails_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"no folder someone/laq here, and the hub .* cannot be reached") as error:
        load_laq("someone/laq", cache_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_without_a_network_uploading_fails_in_one_sentence(tmp_path: Path) -> None:
    folder = save_laq(LatentActionQuantizer(replace(debug(), dim=16)).eval(), tmp_path / "laq")
    with pytest.raises(
        ConnectionError, match="the hub did not take the quantizer as someone/laq: it cannot be reached"
    ):
        upload_folder(folder, "someone/laq", LAQ_FOLDER, token="hf_none")
    with pytest.raises(FileNotFoundError, match="is not a LAQ checkpoint"):
        upload_folder(tmp_path, "someone/laq", LAQ_FOLDER)
