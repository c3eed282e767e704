"""How the options of several commands name cameras."""

from __future__ import annotations


def chosen_cameras(camera: str | None, cameras: list[str]) -> list[str]:
    """The cameras that `--camera` or `--cameras` names; empty where neither does.

    Raises:
        ValueError: If both do.
    """
    if camera is not None and cameras:
        raise ValueError("name one camera with camera or several with cameras, not both")
    return cameras if camera is None else [camera]
