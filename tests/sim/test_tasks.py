from __future__ import annotations

import pytest

from hlrp.sim.tasks import expand_tasks, make_expert, require_task, task_sentence


def test_tasks_groups_and_sentences_are_lerobots() -> None:
    from lerobot.envs import metaworld as lerobot_metaworld

    assert expand_tasks("easy") == lerobot_metaworld.DIFFICULTY_TO_TASKS["easy"]
    for task, sentence in lerobot_metaworld.TASK_DESCRIPTIONS.items():
        assert task_sentence(task) == sentence
        assert type(make_expert(task)) is lerobot_metaworld.TASK_POLICY_MAPPING[task]


def test_repeated_tasks_count_once_and_keep_their_order() -> None:
    assert expand_tasks("window-open-v3, drawer-open-v3,window-open-v3") == [
        "window-open-v3",
        "drawer-open-v3",
    ]


def test_the_old_prefix_is_understood() -> None:
    assert require_task("metaworld-drawer-open-v3") == "drawer-open-v3"


def test_an_unknown_task_lists_close_ones() -> None:
    with pytest.raises(ValueError, match=r"'drawer-opn-v3' is not a Meta-World task; did you mean drawer-open-v3"):
        expand_tasks("window-open-v3,drawer-opn-v3")


@pytest.mark.parametrize("tasks", ["", " , "])
def test_no_task_at_all_is_an_error(tasks: str) -> None:
    with pytest.raises(ValueError, match="expected a Meta-World task or one of the groups easy"):
        expand_tasks(tasks)
