"""Meta-World's tasks, under the names, sentences and difficulty groups that LeRobot gives them.

They are read from LeRobot's own file rather than through `lerobot.envs.metaworld`, whose import takes ten
times as long as Meta-World's and would be paid by every worker process.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.resources
import json
from types import ModuleType
from typing import Any

from hlrp.runtime.extras import MissingPackage
from hlrp.sim.gl_backend import choose_gl_backend

_LEGACY_PREFIX = "metaworld-"


def expand_tasks(tasks: str) -> list[str]:
    """Task names behind a comma-separated list of tasks and difficulty groups.

    Args:
        tasks: Such as "drawer-open-v3,window-open-v3" or "easy"; a group stands for all its tasks.

    Returns:
        Distinct task names in the order given.

    Raises:
        ValueError: If the list is empty or holds a name that is neither a task nor a group.
    """
    groups: dict[str, list[str]] = _catalogue()["DIFFICULTY_TO_TASKS"]
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise ValueError(f"expected a Meta-World task or one of the groups {', '.join(groups)}, got {tasks!r}")
    expanded = [task for name in names for task in groups.get(name) or [require_task(name)]]
    return list(dict.fromkeys(expanded))


def require_task(name: str) -> str:
    """Return the canonical form of the task `name`.

    Raises:
        ValueError: If Meta-World has no such task; lists the closest names.
    """
    task = name.removeprefix(_LEGACY_PREFIX)
    known = _catalogue()["TASK_DESCRIPTIONS"]
    if task not in known:
        close = difflib.get_close_matches(task, known, n=4, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"use one of {', '.join(sorted(known))}"
        raise ValueError(f"{name!r} is not a Meta-World task; {hint}")
    return task


def task_sentence(task: str) -> str:
    """The instruction of `task`, such as "Open a drawer"."""
    return _catalogue()["TASK_DESCRIPTIONS"][require_task(task)]


def make_expert(task: str) -> Any:
    """A new scripted expert for `task`; `get_action` takes the 39 numbers of a raw observation."""
    policy_class = _catalogue()["TASK_POLICY_MAPPING"][require_task(task)]
    return getattr(import_metaworld().policies, policy_class)()


def import_metaworld() -> ModuleType:
    """Meta-World, imported late: it imports MuJoCo, which fixes the rendering library.

    Raises:
        FileNotFoundError: If nothing on this machine can render.
        MissingPackage: If Meta-World is not installed.
    """
    choose_gl_backend()
    try:
        importlib.import_module("metaworld.policies")
    except ModuleNotFoundError as error:
        if error.name != "metaworld":
            raise
        raise MissingPackage("metaworld", needed_for="simulation") from error
    return importlib.import_module("metaworld")


@functools.cache
def _catalogue() -> dict[str, Any]:
    file = importlib.resources.files("lerobot") / "envs" / "metaworld_config.json"
    return json.loads(file.read_text())
