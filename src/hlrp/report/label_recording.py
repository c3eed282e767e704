"""Recording of labelled episodes for Rerun, the viewer that LeRobot uses, too: frames, and codes over time.

Shapes: q codes of a frame.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from einops import rearrange

from hlrp.latents import NO_LABEL
from hlrp.report.episode_view import EpisodeView

_JPEG_QUALITY = 85


class LabelRecording:
    """Writer of a recording to the file `path`, as a context manager; call it only if Rerun is installed.

    Every episode has its own view with the entities `episode_<number>/frames` and `episode_<number>/codes/slot_<q>`, on
    the timelines `frame` and `seconds`, both from the start of the episode.
    """

    def __init__(self, path: Path, *, name: str) -> None:
        """Begin the recording.

        Args:
            path: File to write; complete when the context ends.
            name: Name of the recording in the viewer.
        """
        import rerun  # optional: checked with the options

        self._rerun: Any = rerun
        self._numbers: list[int] = []
        self._stream: Any = rerun.RecordingStream("hlrp_view_labels", recording_id=name)
        self._stream.save(path)

    def __enter__(self) -> LabelRecording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.send_blueprint(self._blueprint())
        self._stream.flush()
        self._stream.disconnect()

    def add(self, view: EpisodeView) -> None:
        """Add one episode."""
        rerun, entity = self._rerun, f"episode_{view.number}"
        self._numbers.append(view.number)
        self._stream.log(entity, rerun.TextDocument(view.title), static=True)
        for number, frame in enumerate(rearrange(view.frames, "f c h w -> f h w c").numpy()):
            self._stream.set_time("frame", sequence=number)
            self._stream.set_time("seconds", duration=number / view.fps)
            self._stream.log(f"{entity}/frames", rerun.Image(frame).compress(jpeg_quality=_JPEG_QUALITY))
        self._stream.reset_time()
        labelled = (view.codes[:, 0] != NO_LABEL).numpy()
        frames = np.flatnonzero(labelled)
        times = [
            rerun.TimeColumn("frame", sequence=frames),
            rerun.TimeColumn("seconds", duration=frames / view.fps),
        ]
        for slot, codes in enumerate(view.codes.numpy()[labelled].T):
            place = f"{entity}/codes/slot_{slot}"
            # Codes are names: a line between two of them would mean nothing.
            self._stream.log(place, rerun.SeriesPoints(names=f"slot {slot}", markers="square"), static=True)
            self._stream.send_columns(place, times, rerun.Scalars.columns(scalars=codes.astype(np.float64)))

    def _blueprint(self) -> Any:
        """A tab for each episode: the frames above the codes."""
        from rerun import blueprint

        tabs = [
            blueprint.Vertical(
                blueprint.Spatial2DView(origin=f"episode_{number}/frames", name="frames"),
                blueprint.TimeSeriesView(origin=f"episode_{number}/codes", name="codes"),
                name=f"episode {number}",
            )
            for number in self._numbers
        ]
        return blueprint.Blueprint(blueprint.Tabs(*tabs), collapse_panels=True)
