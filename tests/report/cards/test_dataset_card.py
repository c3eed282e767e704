"""What a dataset card says: the hub's metadata, columns and instructions, and the cards of the sources as quotes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from hlrp.data.combining import SourceCount
from hlrp.report.cards.combined_card import combined_card, folders_of_counts
from hlrp.report.cards.dataset_card import CARD_FILE, DatasetContent, dataset_card

CONTENT = DatasetContent(
    repo_id="local/x",
    episodes=2,
    frames=9,
    fps=10,
    robot_type="arm <b>",
    features={
        "observation.images.top": {"dtype": "video", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": {"motors": ["pan|tilt", "grip"]}},
        "mine": {"dtype": "int64", "shape": (1,), "names": None},
    },
    tasks=["Open <script> | the door\n# now", "Close [it](http://x)"],
)


def card(folders: dict[str, Path] | None = None, *, has_films: bool = False, **changes: object) -> str:
    return dataset_card(
        replace(CONTENT, **changes),  # pyright: ignore[reportArgumentType]
        title="A",
        summary="B.",
        actions="C.",
        sources="D.",
        folders=folders,
        has_films=has_films,
    )


def source(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    return folder


def test_the_metadata_is_that_of_lerobots_cards_without_a_licence() -> None:
    data = DatasetCard(card()).data.to_dict()
    assert data["tags"] == ["LeRobot", "hlrp"]
    assert data["task_categories"] == ["robotics"]
    assert data["configs"] == [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    assert "license" not in data


def test_texts_of_the_dataset_become_no_markup() -> None:
    text = card()
    assert "- Open &lt;script&gt; &#124; the door # now\n" in text
    assert "- Close &#91;it&#93;(http://x)\n" in text
    assert "- robot: arm &lt;b&gt;\n" in text
    assert "| action | float32 (2): pan&#124;tilt, grip | action, in the units of the source |" in text
    assert "| observation.images.top | video (32x48x3) | frames of a camera |" in text
    assert "| mine | int64 | as in the source |" in text


def test_a_name_cannot_end_the_code_block_of_the_command() -> None:
    text = card(repo_id="local/x\n```\n<b>")
    assert "--dataset.repo_id=local/x-b-" in text
    assert "<b>" not in text


def test_many_instructions_are_counted() -> None:
    text = card(tasks=[f"Task {number}" for number in range(60)])
    assert "- Task 49\n- and 10 more, in `meta/tasks.parquet`\n" in text
    assert "Task 50" not in text


def test_the_card_of_a_source_is_quoted_in_a_fence_that_its_text_cannot_end(tmp_path: Path) -> None:
    theirs = "---\nlicense: mit\n---\n# Theirs\n````\ncode\n````\n<script>"
    text = card({"their [data]": source(tmp_path / "one", theirs)})
    assert text.endswith(f"## Card of the source their &#91;data&#93;\n\n`````markdown\n{theirs}\n`````\n")
    (tmp_path / "one" / CARD_FILE).write_text("x" * 100_001, encoding="utf-8")
    assert card({"one": tmp_path / "one"}).endswith("## Card of the source one\n\nIt is too long to be quoted here.\n")


@pytest.mark.parametrize(
    ("texts", "licence"),
    [
        (["---\nlicense: mit\n---\n", "---\nlicense: mit\ntags: [a]\n---\nText"], {"license": "mit"}),
        (["---\nlicense: mit\n---\n", "---\nlicense: apache-2.0\n---\n"], {}),
        (["---\nlicense: mit\n---\n", "no metadata"], {}),
        (["---\nlicense: [mit\n---\n"], {}),
        (["---\nlicense: 3\n---\n"], {}),
        (["---\n- license\n---\n"], {}),
        (
            ["---\nlicense: other\nlicense_name: ours\nlicense_link: 7\n---\n"],
            {"license": "other", "license_name": "ours"},
        ),
    ],
)
def test_a_licence_is_claimed_only_if_all_sources_have_it(
    tmp_path: Path, texts: list[str], licence: dict[str, str]
) -> None:
    folders = {str(number): source(tmp_path / str(number), text) for number, text in enumerate(texts)}
    found = DatasetCard(card(folders)).data.to_dict()
    assert {key: value for key, value in found.items() if key.startswith("license")} == licence
    assert "license" not in DatasetCard(card(folders, has_films=True)).data.to_dict()


def test_sources_of_one_name_are_quoted_one_by_one(tmp_path: Path) -> None:
    counts = [
        SourceCount("data", 1, 4, 4, (0,), tmp_path / "a"),
        SourceCount("films", 1, 4, 0, ()),
        SourceCount("data", 1, 4, 0, (), tmp_path / "b"),
        SourceCount("data", 1, 4, 0, (), tmp_path / "a"),
    ]
    assert folders_of_counts(counts) == {"data": tmp_path / "a", "data (2)": tmp_path / "b"}


def test_a_combined_dataset_without_a_complete_episode_trains_no_policy_of_lerobot(tmp_path: Path) -> None:
    text = combined_card(CONTENT, [SourceCount("/home/me/data", 2, 9, 3, (), tmp_path)])
    assert "| data | 0 to 1 | 9 | 3 | none |" in text
    assert "/home" not in text
    assert "lerobot-train" not in text
    assert "No episode has actions in all frames" in text
