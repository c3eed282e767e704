"""Meta-World's tasks, with LeRobot's task names, instructions and difficulty groups.

The tasks are read from LeRobot's JSON file and not by importing `lerobot.envs.metaworld`: that import takes ten times
as long as the import of Meta-World, in every worker process.
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
"""Optional prefix of a task name, which LeRobot's own Meta-World environment also removes."""


def expand_tasks(tasks: str) -> list[str]:
    """Return the task names in a comma-separated list of tasks and difficulty groups.

    Args:
        tasks: A list such as "drawer-open-v3,window-open-v3" or "easy"; a group stands for all its tasks.

    Returns:
        Task names in the given order, each once.

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
    """Return the task `name` without the legacy prefix.

    Raises:
        ValueError: If Meta-World has no task of this name; the message lists the closest names.
    """
    task = name.removeprefix(_LEGACY_PREFIX)
    sentences = _catalogue()["TASK_DESCRIPTIONS"]
    if task not in sentences:
        close = difflib.get_close_matches(task, sentences, n=4, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"use one of {', '.join(sorted(sentences))}"
        raise ValueError(f"{name!r} is not a Meta-World task; {hint}")
    return task


def task_sentence(task: str) -> str:
    """Return the instruction of `task`, such as "Open a drawer"."""
    return _catalogue()["TASK_DESCRIPTIONS"][require_task(task)]


def make_expert(task: str) -> Any:
    """Build Meta-World's scripted expert for `task`; its `get_action` takes a raw observation of 39 numbers."""
    policy_class = _catalogue()["TASK_POLICY_MAPPING"][require_task(task)]
    return getattr(import_metaworld().policies, policy_class)()


def import_metaworld() -> ModuleType:
    """Choose the rendering library, then import Meta-World and return the module.

    Meta-World imports MuJoCo, which reads the choice of the rendering library once, at its import.

    Raises:
        FileNotFoundError: If nothing on this machine can render without a display.
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
    """Read LeRobot's table of Meta-World tasks: instructions, difficulty groups and names of the expert classes."""
    file = importlib.resources.files("lerobot") / "envs" / "metaworld_config.json"
    return json.loads(file.read_text())
