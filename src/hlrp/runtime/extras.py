"""Optional packages: check that they are installed, and name the extra of this distribution that installs them."""

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
    "trackio": "trackio",
    "rerun": "viewer",
    "datatrove": "scale",
    "ray": "scale",
}


class MissingPackage(ModuleNotFoundError, ValueError):
    """Error for an optional package that is not installed; the message has the command that installs it.

    It is also a ValueError, so that commands and draccus report it like a wrong option.
    """

    def __init__(self, package: str, *, needed_for: str) -> None:
        extra = _EXTRAS.get(package)
        install = package if extra is None else f'"{_DISTRIBUTION}[{extra}]"'
        super().__init__(f"{needed_for} needs {package}; install it with `pip install {install}`", name=package)


def require_packages(*packages: str, needed_for: str) -> None:
    """Raise unless all `packages` are installed, without importing them.

    Raises:
        MissingPackage: For the first package that is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package, needed_for=needed_for)
