from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from hlrp.cli.import_lapa import ImportLapaConfig, import_lapa, main
from hlrp.cli.inspect_latents import InspectConfig, inspect_latents
from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.data.labels import find_labels
from hlrp.laq.checkpoint import DESCRIPTION_FILE, QUALITY_FILE, load_laq
from hlrp.laq.lapa.model import LapaQuantizer
from lapa_layout import lapa_clips, lapa_state
from tiny_datasets import CAMERA


@pytest.fixture
def config(tmp_path: Path) -> ImportLapaConfig:
    """Import tiny weights in LAPA's layout."""
    torch.save(lapa_state(), tmp_path / "laq_openx.pt")
    return ImportLapaConfig(
        weights=str(tmp_path / "laq_openx.pt"), output_dir=str(tmp_path / "laq"), frame_offset_s=0.1
    )


def test_an_imported_quantizer_loads_like_one_of_ours_and_writes_the_same_codes(config: ImportLapaConfig) -> None:
    model = import_lapa(config)
    loaded = load_laq(config.output_dir)
    assert isinstance(loaded.model, LapaQuantizer)
    assert loaded.model.config == model.config
    assert loaded.fingerprint == model.fingerprint()
    assert loaded.model.spec.frame_offset_s == 0.1
    assert torch.equal(loaded.model.encode(lapa_clips(3)).require_codes(), model.encode(lapa_clips(3)).require_codes())


def test_its_folder_names_the_architecture_and_claims_no_figures(config: ImportLapaConfig) -> None:
    import_lapa(config)
    folder = Path(config.output_dir)
    assert json.loads((folder / DESCRIPTION_FILE).read_text())["architecture"] == "lapa"
    assert not (folder / QUALITY_FILE).exists()


def test_it_labels_a_dataset(config: ImportLapaConfig, image_dataset_root: Path, tmp_path: Path) -> None:
    import_lapa(config)
    root = shutil.copytree(image_dataset_root, tmp_path / "data")
    precompute_latent_codes(
        PrecomputeConfig(laq_path=config.output_dir, dataset_root=str(root), camera=CAMERA, device="cpu")
    )
    labels = find_labels(root)
    assert labels.metadata.laq_fingerprint == load_laq(config.output_dir).fingerprint
    assert labels.codes.shape[1] == 4
    assert (labels.codes[labels.valid] >= 0).all()
    assert (labels.codes[labels.valid] < 8).all()


@pytest.mark.slow
def test_its_report_compares_it_with_baselines_that_can_be_trained(
    config: ImportLapaConfig, image_dataset_root: Path, tmp_path: Path
) -> None:
    import_lapa(config)
    output = tmp_path / "report"
    inspect_latents(
        InspectConfig(
            laq_path=config.output_dir, dataset_root=str(image_dataset_root), cameras=[CAMERA], baselines=True,
            labeller_steps=2, output_dir=str(output), device="cpu",
        )
    )  # fmt: skip
    rows = json.loads((output / "metrics.json").read_text())["baselines"]
    assert [row["name"] for row in rows] == ["this LAQ", "random LAQ", "inverse dynamics", "oracle codes"]
    assert all(len(row["perplexity"]) == 4 for row in rows)
    assert not any("the same" in row["meaning"] for row in rows)  # LAPA's own architecture cannot be trained here


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights=nowhere.pt", "--frame_offset_s=1"], "nowhere.pt does not exist; name a state dict of LAPA's"),
        (["--weights=laq_openx.pt"], "frame_offset_s is missing: give the seconds between the two frames"),
        (["--weights=laq_openx.pt", "--frame_offset_s=1", "--code_seq_len=2"], "not to code_seq_len=2"),
        (["--weights=laq_openx.pt", "--frame_offset_s=1", "--output_dir=used"], "used already exists"),
        (["--weights=laq_openx.pt", "--frame_offset_s=1", "--cameras=[top,wrist]"], "sees one camera, got cameras="),
        (["--weights=other.pt", "--frame_offset_s=1"], "a weight has other axes than in LAPA's quantizer"),
    ],
)
def test_a_mistake_ends_in_one_line_status_2_and_nothing_left_behind(
    config: ImportLapaConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**lapa_state(), "vq.codebooks": torch.zeros(8)}, tmp_path / "other.pt")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "photo.png").touch()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["hlrp-import-lapa", "--output_dir=laq", *flags])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before
