from __future__ import annotations

import dataclasses
import errno
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from damaged_files import damaged
from hlrp.laq import checkpoint
from hlrp.laq.checkpoint import CARD_FILE, DESCRIPTION_FILE, QUALITY_FILE, WEIGHTS_FILE, load_laq
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.reconstruction import NO_PICTURES
from hlrp.report.saving import save_laq
from unmeasured_quality import UNMEASURED

CAMERA = "observation.images.top"
QUALITY = dataclasses.replace(UNMEASURED, pictures=dataclasses.replace(NO_PICTURES, copy_gain=0.25))


def save(model: LatentActionQuantizer, folder: Path, *, overwrite: bool = False) -> Path:
    return save_laq(model, folder, cameras=[CAMERA], quality=QUALITY, extra={"steps": 3}, overwrite=overwrite)


def test_a_saved_quantizer_writes_the_very_same_codes(
    model: LatentActionQuantizer, clips: Tensor, tmp_path: Path
) -> None:
    loaded = load_laq(save(model, tmp_path / "laq"))
    before, after = model.encode(clips), loaded.model.encode(clips)
    assert torch.equal(before.require_codes(), after.require_codes())
    assert torch.equal(before.require_vectors(), after.require_vectors())
    assert torch.equal(model.codebook(), loaded.model.codebook())


def test_a_loaded_quantizer_knows_who_it_is_and_does_not_train(model: LatentActionQuantizer, tmp_path: Path) -> None:
    loaded = load_laq(save(model, tmp_path / "laq"))
    assert loaded.fingerprint == model.fingerprint() == loaded.model.fingerprint()
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert (loaded.cameras, loaded.extra) == ([CAMERA], {"steps": 3})


def test_its_cameras_in_another_order_are_refused(model: LatentActionQuantizer, tmp_path: Path) -> None:
    laq = replace(load_laq(save(model, tmp_path / "laq")), cameras=["top", "wrist"])
    with pytest.raises(ValueError, match="trained on the cameras top, wrist, in this order, got wrist, top"):
        laq.require_cameras(["wrist", "top"])
    with pytest.raises(ValueError, match="trained on 1 cameras, got 2"):  # of another dataset, by other names
        laq.require_cameras(["left", "right"])


def test_the_folder_holds_four_plain_files(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    folder = save(fsq_model, tmp_path / "laq")
    assert {path.name for path in folder.iterdir()} == {DESCRIPTION_FILE, WEIGHTS_FILE, QUALITY_FILE, CARD_FILE}
    assert json.loads((folder / QUALITY_FILE).read_text()) == QUALITY.to_dict()


def change_a_weight(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, folder / WEIGHTS_FILE)


def change_a_setting(folder: Path) -> None:
    values = json.loads((folder / DESCRIPTION_FILE).read_text())
    values["config"]["spec"]["frame_offset_s"] = 0.5
    (folder / DESCRIPTION_FILE).write_text(json.dumps(values))


def cut_the_weights(folder: Path) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])


def take_weights_of_another_size(folder: Path) -> None:
    save(LatentActionQuantizer(replace(debug(), dim=16)), folder.with_name("other"))
    (folder.with_name("other") / WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)


@pytest.mark.parametrize("tamper", [change_a_weight, change_a_setting, cut_the_weights, take_weights_of_another_size])
def test_a_tampered_or_damaged_checkpoint_is_refused(
    fsq_model: LatentActionQuantizer, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    folder = save(fsq_model, tmp_path / "laq")
    tamper(folder)
    with pytest.raises(ValueError, match=r"laq/(model\.safetensors|laq\.json) .*; copy the whole folder"):
        load_laq(folder)


@pytest.mark.parametrize("name", [DESCRIPTION_FILE, WEIGHTS_FILE])
def test_a_damaged_file_is_named(fsq_model: LatentActionQuantizer, tmp_path: Path, name: str) -> None:
    file = save(fsq_model, tmp_path / "laq") / name
    for _ in damaged(file):
        with pytest.raises(ValueError, match=re.escape(str(file))):
            load_laq(file.parent)
    load_laq(file.parent)


def test_a_checkpoint_is_readable_by_whom_the_umask_says(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    folder = save(fsq_model, tmp_path / "laq")
    assert {path.stat().st_mode for path in folder.iterdir()} == {usual.stat().st_mode}


def test_figures_that_nobody_measured_are_not_written(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    folder = save_laq(fsq_model, tmp_path / "laq", cameras=[], quality=None, extra={})
    assert not (folder / QUALITY_FILE).exists()
    assert load_laq(folder).fingerprint == fsq_model.fingerprint()


def test_an_architecture_of_a_later_version_is_refused(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    folder = save(fsq_model, tmp_path / "laq")
    values = json.loads((folder / DESCRIPTION_FILE).read_text())
    (folder / DESCRIPTION_FILE).write_text(json.dumps({**values, "architecture": "future"}))
    with pytest.raises(
        ValueError, match="holds a 'future' quantizer; this version knows hlrp, lapa: install a newer one"
    ):
        load_laq(folder)


@pytest.mark.parametrize("missing", [DESCRIPTION_FILE, WEIGHTS_FILE])
def test_half_a_checkpoint_is_refused(fsq_model: LatentActionQuantizer, tmp_path: Path, missing: str) -> None:
    folder = save(fsq_model, tmp_path / "laq")
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=r"is not a LAQ checkpoint .* train one with hlrp-train-laq"):
        load_laq(folder)


def test_a_quantizer_replaces_an_earlier_one_only_on_request(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    folder = save(fsq_model, tmp_path / "laq")
    with pytest.raises(FileExistsError, match="already exists"):
        save(fsq_model, folder)
    assert load_laq(save(fsq_model, folder, overwrite=True)).fingerprint == fsq_model.fingerprint()


def test_a_folder_of_something_else_is_never_replaced(fsq_model: LatentActionQuantizer, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(FileExistsError):
        save(fsq_model, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_full_disk_leaves_nothing_half_written(
    fsq_model: LatentActionQuantizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(model: LatentActionQuantizer, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_weights", write_half)
    with pytest.raises(OSError, match="No space left"):
        save(fsq_model, tmp_path / "laq")
    assert list(tmp_path.iterdir()) == []
