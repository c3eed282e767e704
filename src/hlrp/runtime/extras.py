"""Packages that only some commands and policies need, and the extra that installs each."""

from __future__ import annotations

import importlib.util

_DISTRIBUTION = "lerobot_policy_felix_bundle"
_EXTRAS = {
    "diffusers": "hlrp_action_expert_latent",
    "peft": "peft",
    "metaworld": "demo",
    "mujoco": "demo",
    "psutil": "demo",
    "grpc": "async",
    "tensorboard": "loggers",
}


class MissingPackage(ModuleNotFoundError, ValueError):
    """A package is not installed; the message is the command that installs it.

    A ValueError too, so that commands and draccus treat it as a mistake in what was asked for.
    """

    def __init__(self, package: str, *, needed_for: str) -> None:
        extra = _EXTRAS.get(package)
        install = package if extra is None else f'"{_DISTRIBUTION}[{extra}]"'
        super().__init__(f"{needed_for} needs {package}; install it with `pip install {install}`", name=package)


def require_packages(*packages: str, needed_for: str) -> None:
    """Raise unless all `packages` are installed; nothing is imported.

    Raises:
        MissingPackage: For the first that is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package, needed_for=needed_for)
