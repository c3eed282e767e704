"""What a model card says of data: names, never paths, and text that cannot become markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlrp.data.dataset import dataset_name
from hlrp.report.cards.parts import facts_list, hub_ids, hub_model, is_hub_id, markdown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Push the T onto the robot's target", "Push the T onto the robot's target"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[click](http://x)", "&#91;click&#93;(http://x)"),
        ("a | b\n# c", "a &#124; b # c"),
        ("`$(rm)`", "&#96;&#36;(rm)&#96;"),
        ("/left/right", "/left/right"),
    ],
)
def test_text_from_data_is_one_line_without_markup(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("lerobot/pusht", True),
        ("me/my.data_set-2", True),
        ("local/hlrp_demos", False),
        ("demos", False),
        ("/data/demos", False),
        ("a/b/c", False),
        ("../demos", False),
        ("<a>/b", False),
    ],
)
def test_only_names_of_repositories_reach_the_hubs_metadata(name: str, is_one: bool) -> None:
    assert is_hub_id(name) == is_one
    assert hub_ids([name, name]) == ([name] if is_one else [])


def test_a_local_folder_is_no_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs" / "vla").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_model("outputs/vla") is None
    assert hub_model(None) is None
    assert hub_model("someone/vla") == "someone/vla"


@pytest.mark.parametrize(
    ("repo_id", "root", "name"),
    [
        ("me/demos", "/data/other", "me/demos"),
        (None, "/data/kitchen", "kitchen"),
        (None, "kitchen/", "kitchen"),
        (None, "/data/my demos--2", "my-demos-2"),
        (None, "/", "dataset"),
        (None, None, "local/hlrp_demos"),
    ],
)
def test_a_dataset_is_named_by_its_repo_id_or_its_folder(repo_id: str | None, root: str | None, name: str) -> None:
    assert dataset_name(repo_id, root) == name


def test_facts_leave_lists_and_unknown_values_to_the_checkpoints_files() -> None:
    facts = {"steps": 3, "labels_path": "/home/me/labels", "cameras": ["a"], "seed": None}
    assert facts_list(facts) == "- steps: 3\n- labels path: labels"
