from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors.torch import load_file

from hlrp.cli.combine_datasets import main
from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.cli.train_foundation import TrainFoundationConfig, train_foundation
from hlrp.cli.train_laq import TrainLAQConfig, train_laq
from hlrp.data.labels import find_labels
from hlrp.foundation.backends import QwenVLChatConfig
from policies.lerobot_commands import policy_flags, pretrained, run_train, train_flags
from tiny_datasets import LENGTHS, SIZE
from tiny_videos import write_video


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of 14 frames."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, 14, noise=2.0)
    return folder


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `hlrp-combine-datasets FLAGS`."""
    monkeypatch.setattr(sys, "argv", ["hlrp-combine-datasets", *flags])
    status = 0
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_says_which_episodes_come_from_where(
    video_dataset_root: Path,
    films: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [
        f"--dataset_root={video_dataset_root}",
        "--labelled_episodes=[0,1,3]",
        f"--sources=[{{video_dir: {films}, instruction: Open the door}}]",
        f"--output_dir={tmp_path / 'all'}",
    ]
    status, out, _ = run(capsys, monkeypatch, *flags)
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    labelled = str(LENGTHS[0] + LENGTHS[1] + LENGTHS[3])
    assert ["videos", "0", "to", "5", str(sum(LENGTHS)), labelled, "0", "to", "1,", "3"] in rows
    assert [films.name, "6", "to", "7", "28", "0", "none"] in rows
    assert [path.name for path in tmp_path.iterdir()] == ["all"]
    status, out, err = run(capsys, monkeypatch, *flags)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == f"error: {tmp_path / 'all'} already exists; remove it or choose another folder"


def test_a_mistake_leaves_nothing_behind(
    video_dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    status, _, err = run(
        capsys,
        monkeypatch,
        f"--dataset_root={video_dataset_root}",
        f"--sources=[{{video_dir: {tmp_path / 'films'}, instruction: Open}}]",
        f"--output_dir={tmp_path / 'all'}",
    )
    assert status == 2
    assert "holds no video" in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hlrp_vla_direct", "hlrp_action_expert_direct"])
def test_every_stage_takes_the_combined_dataset(
    video_dataset_root: Path,
    films: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    data = tmp_path / "all"
    sources = f"[{{video_dir: {films}, instruction: Open the door}}]"
    flags = [f"--dataset_root={video_dataset_root}", "--labelled_episodes=[0,1]", f"--sources={sources}"]
    assert run(capsys, monkeypatch, *flags, f"--output_dir={data}")[0] == 0
    laq, foundation, policy = tmp_path / "laq", tmp_path / "foundation", tmp_path / "policy"
    train_laq(TrainLAQConfig(dataset_root=str(data), output_dir=str(laq), preset="debug", steps=4, device="cpu"))
    precompute_latent_codes(PrecomputeConfig(laq_path=str(laq), dataset_root=str(data), device="cpu"))
    assert len(find_labels(data).codes) == sum(LENGTHS) + 28
    backend = QwenVLChatConfig(image_size=(SIZE, SIZE))
    train_foundation(
        TrainFoundationConfig(
            dataset_root=str(data), output_dir=str(foundation), backend=backend, steps=2, batch_size=4, device="cpu"
        )
    )
    run_train(
        f"--policy.type={kind}",
        *policy_flags(vla_checkpoint_path=foundation, latent_loss_weight=1.0),
        *train_flags(data, policy, steps=3),
    )
    assert all(value.isfinite().all() for value in load_file(pretrained(policy) / "model.safetensors").values())
    saved = json.loads((pretrained(policy) / "config.json").read_text())
    assert list(saved["output_features"]) == [ACTION]
    assert set(saved["input_features"]) >= {OBS_STATE}
    normalizer = next(pretrained(policy).glob("policy_preprocessor*normalizer*.safetensors"))
    count = load_file(normalizer)[f"{ACTION}.count"]
    assert count.item() == LENGTHS[0] + LENGTHS[1]
