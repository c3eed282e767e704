"""Cards of the datasets that our commands write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from hlrp.commands.combine_datasets import combine_datasets
from hlrp.commands.precompute_latent_codes import precompute_latent_codes
from hlrp.commands.pseudo_label import pseudo_label
from hlrp.data.dataset import open_dataset
from hlrp.data.source_config import AddedSourceConfig
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.laq.checkpoint import load_laq
from hlrp.options.combine_datasets import CombineDatasetsConfig
from hlrp.options.precompute_latent_codes import PrecomputeConfig
from hlrp.options.pseudo_label import PseudoLabelConfig
from tiny_datasets import LENGTHS, TASKS
from tiny_videos import write_video

TINY = InverseDynamicsConfig(members=2, steps=3, batch_size=8, width=8, folds=2)
FRAMES = sum(LENGTHS)


@pytest.fixture
def demos(image_dataset_root: Path, tmp_path: Path) -> Path:
    """Dataset with a card of its own."""
    root = tmp_path / "in" / "demos"
    shutil.copytree(image_dataset_root, root)
    (root / "README.md").write_text("---\nlicense: mit\n---\n# My demonstrations\n", encoding="utf-8")
    return root


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """One film of 14 frames."""
    folder = tmp_path / "in" / "films"
    folder.mkdir(parents=True)
    write_video(folder / "a.mp4", 14, noise=2.0)
    return folder


def card(folder: Path, tmp_path: Path) -> str:
    """The card of a new dataset, which is valid for the hub and names no folder of this machine."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert DatasetCard(text).data.to_dict()["task_categories"] == ["robotics"]
    assert str(tmp_path) not in text
    open_dataset("local/x", folder)
    return text


def pseudo_labelled(demos: Path, output: Path, **changes: object) -> None:
    values = {"start": "scratch", "image_size": 32, "labelled_episodes": [0, 1], "model": TINY, "device": "cpu"}
    pseudo_label(PseudoLabelConfig(output_dir=output, dataset_root=str(demos), **{**values, **changes}))  # pyright: ignore[reportArgumentType]


def test_a_combined_dataset_says_which_actions_are_known(demos: Path, films: Path, tmp_path: Path) -> None:
    output = tmp_path / "all"
    added = [AddedSourceConfig(video_dir=str(films), instruction="Open the door")]
    combine_datasets(
        CombineDatasetsConfig(
            output_dir=output, dataset_root=str(demos), labelled_episodes=[0, 1, 3], sources=added, repo_id="local/all"
        )
    )
    text, known = card(output, tmp_path), LENGTHS[0] + LENGTHS[1] + LENGTHS[3]
    assert f"- 7 episodes, {FRAMES + 14} frames\n" in text
    assert f"| demos | 0 to 5 | {FRAMES} | {known} | 0 to 1, 3 |\n| films | 6 | 14 | 0 | none |" in text
    assert f"{known} of {FRAMES + 14} frames have a known action." in text
    assert "'--dataset.episodes=[0, 1, 3]'" in text
    assert "--dataset.repo_id=local/all " in text
    assert all(f"- {task}\n" in text for task in (*TASKS, "Open the door"))
    assert "# My demonstrations\n```\n" in text  # the card of the source, as a quote
    assert "license" not in DatasetCard(text).data.to_dict()  # films have none


def test_a_pseudo_labelled_dataset_says_how_actions_were_filled_in(
    demos: Path, films: Path, tmp_path: Path, laq_path: Path
) -> None:
    added = [AddedSourceConfig(video_dir=str(films), instruction="Open the door")]
    pseudo_labelled(demos, tmp_path / "full", sources=added, min_confidence=0.25)
    text, known = card(tmp_path / "full", tmp_path), LENGTHS[0] + LENGTHS[1]
    assert f"| demos | 0 to 5 | {FRAMES} | {known} | 0 to 1 |\n| films | 6 | 14 | 0 | none |" in text
    assert f"{known} of {FRAMES + 14} frames have a true action. All actions are true in the episodes 0 to 1." in text
    assert "by 2 inverse dynamics models, each trained for 3 steps on the true actions, from random weights." in text
    assert "true actions never vary there: d." in text
    assert "| calibration error of the confidence; 0 is perfect | 0." in text
    assert "| R²: explained variance of the actions;" in text
    assert "`is_action_valid` is false where the confidence is below 0.25." in text
    assert "| action_confidence | float32 | 1 for recorded actions, else the probability" in text
    assert "the mean of the first source stands." in text
    assert "'--dataset.episodes=[0, 1]'" in text  # three steps are not enough for the other actions

    pseudo_labelled(demos, tmp_path / "from_laq", start="laq", laq_path=str(laq_path), image_size=64)
    text = card(tmp_path / "from_laq", tmp_path)
    assert f"from the encoder of the latent action quantizer `{load_laq(laq_path).fingerprint}`" in text
    assert DatasetCard(text).data.to_dict()["license"] == "mit"


def test_a_labelled_dataset_says_what_its_labels_describe(demos: Path, laq_path: Path, tmp_path: Path) -> None:
    output, laq = tmp_path / "labelled", load_laq(laq_path)
    config = PrecomputeConfig(
        laq_path=str(laq_path), dataset_root=str(demos), output_dataset=str(output), batch_size=16, device="cpu"
    )
    precompute_latent_codes(config)
    text, spec = card(output, tmp_path), laq.model.spec
    assert f"{spec.num_codes} codes of {spec.codebook_size} for what changes within {spec.frame_offset_s:g} s" in text
    assert f"{FRAMES - len(LENGTHS)} of {FRAMES} frames have a label" in text
    assert f"the latent action quantizer `{laq.fingerprint}`" in text
    assert f"| latent_codes | int64 ({spec.num_codes}) | latent action that starts at the frame" in text
    assert "Actions are those of the source, unchanged." in text
    assert "# My demonstrations\n```\n" in text
    assert DatasetCard(text).data.to_dict()["license"] == "mit"


def test_a_repeated_run_writes_the_same_card(demos: Path, tmp_path: Path) -> None:
    pseudo_labelled(demos, tmp_path / "one" / "full")
    pseudo_labelled(demos, tmp_path / "two" / "full")
    first, second = ((tmp_path / name / "full" / "README.md").read_bytes() for name in ("one", "two"))
    assert first == second


def test_a_card_never_appears_without_its_dataset(demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path) -> None:
        assert (folder / "README.md").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr("hlrp.storage.files._flush", stop)
    with pytest.raises(KeyboardInterrupt):
        pseudo_labelled(demos, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
