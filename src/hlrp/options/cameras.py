"""How the options of several commands name cameras."""

from __future__ import annotations

from hlrp.runtime.checks import require_cameras


def chosen_cameras(camera: str | None, cameras: list[str]) -> list[str]:
    """Return the dataset keys of the cameras given by `--camera` or `--cameras`; empty if neither is given.

    Raises:
        ValueError: If both are given, or a camera is named twice.
    """
    if camera is not None and cameras:
        raise ValueError("name one camera with camera or several with cameras, not both")
    require_cameras("cameras", cameras)
    return cameras if camera is None else [camera]
