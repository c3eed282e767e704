"""Page of `hlrp-view-labels`: the codes of episodes under their video, and the nearest clips of each code.

The page has a fixed largest size: videos get most of it, in equal parts, and film strips the rest.

Shapes: p frames of a film strip.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from io import BytesIO
from itertools import groupby

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from hlrp.latents import NO_LABEL, LatentSpec
from hlrp.measure.nearest_clips import CodeClips
from hlrp.report.episode_view import EpisodeView
from hlrp.report.pages.labels_script import LABELS_SCRIPT, LABELS_STYLE
from hlrp.report.pages.parts import facts, page, paragraph, section, table
from hlrp.report.plots.code_timeline import code_colours, ink_on, timeline_png
from hlrp.report.plots.latent_plots import overlay
from hlrp.report.videos import small_video

PAGE_FILE = "report.html"

_TITLE = "Latent labels along the video"
_VIDEOS, _STRIPS = 0.7, 0.25
"""Shares of the page for videos and film strips; the rest is for text and timelines."""
_BASE64 = 4 / 3
"""Bytes of a file within a page, for each byte of the file."""
_SHOWN_PX = 256
"""Smaller frames are enlarged by a whole number, so that video compression leaves their edges."""
_STRIP_PX = 96
"""Height of a film strip."""
_QUALITIES = ((80, 6), (60, 4), (40, 2), (25, 1))
"""JPEG quality of film strips, and the largest number of clips of a code; the first that fits is taken."""
_LEGEND = 32
"""Largest codebook whose colours are listed."""

_SPEED = (
    '<label>speed <select><option value="1">1</option><option value="0.5">1/2</option><option value="0.25">1/4</option>'
    '<option value="0.1">1/10</option></select></label>'
)
"""Choice of the speed of a video: motions of a simulation may last a second."""

_ALONG = (
    "Each row of coloured cells is one code slot, and each cell the code of the clip that starts at this frame: what "
    "changes from there to {offset:g} s later. The cursor follows the video; click or drag in the cells to go there. "
    "Hatched frames have no label: their clip would pass the end of the episode or a scene cut, or they could not be "
    "read."
)
_NEAREST = (
    "For every code, the clips whose vector in this slot is nearest to the mean of all clips with the code: frame t, "
    "the end of the clip, and the change between them (grey: unchanged; orange: became brighter; blue: became darker). "
    "A code has one meaning if its clips show the same change, whatever the scene. All slots describe a clip together, "
    "so that one slot alone may mean little."
)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Frames of one clip of a code."""

    frames: UInt8[Tensor, "p 3 h w"]
    """RGB in [0, 255], from frame t to the end of the clip."""
    caption: str


def labels_page(
    views: Iterable[EpisodeView],
    strips: Sequence[tuple[CodeClips, Sequence[Strip]]],
    spec: LatentSpec,
    *,
    numbers: Sequence[tuple[str, str]],
    about: dict[str, str],
    max_bytes: int,
    num_views: int,
) -> str:
    """Render the page.

    Args:
        views: Episodes to show; each is taken when the one before is done, so that only one is in memory.
        strips: Codes with their nearest clips, by slot; empty for none.
        spec: Geometry of the codes.
        numbers: Tiles at the top: a number and what it is.
        about: Rows of the last table: text by name.
        max_bytes: Largest size of the page.
        num_views: Number of `views`.

    Returns:
        A complete HTML page.
    """
    colours = code_colours(spec.codebook_size)
    budget = int(max_bytes * _VIDEOS / _BASE64 / num_views)
    body = [
        f"<header><h1>{_TITLE}</h1>{facts(numbers)}</header>\n",
        section(
            "Codes over time",
            paragraph(_ALONG.format(offset=spec.frame_offset_s * (spec.num_frames - 1))),
            _legend(colours),
            *(_view(view, spec, colours, budget) for view in views),
        ),
    ]
    if strips:
        body.append(section("Nearest clips of each code", paragraph(_NEAREST), _strips(strips, colours, max_bytes)))
    rows = [[escape(name), escape(text)] for name, text in about.items()]
    body.append(section("What is shown", table(["", ""], rows)))
    return page(_TITLE, "".join(body), style=LABELS_STYLE, script=LABELS_SCRIPT)


def _legend(colours: Sequence[str]) -> str:
    """Colours of the codes, which the script reads, too."""
    pairs = escape(json.dumps([[colour, ink_on(colour)] for colour in colours]))
    shown = "".join(_code(code, colours) for code in range(len(colours))) if len(colours) <= _LEGEND else ""
    return f'<div class="legend" data-colours="{pairs}">{shown}</div>\n'


def _code(code: int, colours: Sequence[str]) -> str:
    return f'<span class="code" style="background:{colours[code]};color:{ink_on(colours[code])}">{code}</span>'


def _view(view: EpisodeView, spec: LatentSpec, colours: list[str], max_bytes: int) -> str:
    """One episode: its video, the codes of the current frame, and the codes of all frames with the cursor."""
    video, shown = _video(view, max_bytes)
    codes = view.codes[:shown]
    names = _slot_names(spec)
    listed = ";".join("" if row[0] == NO_LABEL else " ".join(map(str, row)) for row in codes.tolist())
    chips = "".join(f"<div><span>–</span><small>{name}</small></div>" for name in names)
    cut = "" if shown == view.num_frames else f" The first {shown} of {view.num_frames} frames."
    timeline = f'<img alt="codes over time" src="{_uri("image/png", timeline_png(codes, colours))}">'
    return (
        f'<div class="view" data-fps="{view.fps!r}" data-codes="{listed}">\n'
        f"<h3>Episode {view.number}: {escape(view.title)}{cut}</h3>\n"
        f'<div class="player"><video controls loop muted playsinline src="{_uri("video/mp4", video)}"></video>'
        f'<div class="now"><p></p><div class="codes">{chips}</div>{_SPEED}</div></div>\n'
        f'<div class="lines"><div class="names">{"".join(f"<span>{name}</span>" for name in names)}</div>'
        f'<div class="timeline">{timeline}<div class="cursor"></div></div>'
        f'<div class="seconds"><span>0 s</span><span>{shown / view.fps:.1f} s</span></div></div>\n</div>\n'
    )


def _slot_names(spec: LatentSpec) -> list[str]:
    """Names of the codes of a frame, in their order."""
    slots = [f"slot {slot}" for slot in range(spec.code_seq_len)]
    if spec.num_frames == 2:
        return slots
    return [f"step {step}, {slot}" for step in range(spec.num_frames - 1) for slot in slots]


def _video(view: EpisodeView, max_bytes: int) -> tuple[bytes, int]:
    """An mp4 of at most `max_bytes` bytes, and how many frames it has: all, or the first half, quarter, …"""
    enlarge = max(_SHOWN_PX // max(view.frames.shape[-2:]), 1)
    frames = rearrange(view.frames, "f c h w -> f h w c").numpy()
    rate = Fraction(view.fps).limit_denominator(1001)
    count = len(frames)
    while True:
        large = [frame.repeat(enlarge, axis=0).repeat(enlarge, axis=1) for frame in frames[:count]]
        video = small_video(large, rate, max_bytes=max_bytes)
        if len(video) <= max_bytes or count == 1:
            return video, count
        count = -(-count // 2)


def _strips(strips: Sequence[tuple[CodeClips, Sequence[Strip]]], colours: Sequence[str], max_bytes: int) -> str:
    """Film strips of all codes, as good as they fit into their share of the page."""
    html = ""
    for quality, most in _QUALITIES:
        html = "".join(
            f'<h3>Slot {slot}</h3>\n<div class="strips">\n'
            f"{''.join(_row(code, clips[:most], colours, quality) for code, clips in group)}</div>\n"
            for slot, group in groupby(strips, key=lambda pair: pair[0].slot)
        )
        if len(html) <= max_bytes * _STRIPS:
            break
    return html


def _row(code: CodeClips, clips: Sequence[Strip], colours: Sequence[str], quality: int) -> str:
    pictures = "".join(
        f'<figure><img alt="{escape(clip.caption)}" src="{_uri("image/jpeg", _strip(clip.frames, quality))}">'
        f"<figcaption>{escape(clip.caption)}</figcaption></figure>"
        for clip in clips
    )
    return f"<div>{_code(code.code, colours)} <small>{_percent(code.share)}</small></div><div>{pictures}</div>\n"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _strip(frames: UInt8[Tensor, "p 3 h w"], quality: int) -> bytes:
    """A JPEG of the frames side by side, and of the change from the first to the last."""
    change = (255 * overlay(frames[:1] / 255, frames[-1:] / 255)[0]).astype(np.uint8)
    pictures = [Image.fromarray(frame) for frame in (*rearrange(frames, "p c h w -> p h w c").numpy(), change)]
    width = round(_STRIP_PX * pictures[0].width / pictures[0].height)
    small = [np.asarray(picture.resize((width, _STRIP_PX), Image.Resampling.BICUBIC)) for picture in pictures]
    line = np.full((_STRIP_PX, 3, 3), 255, dtype=np.uint8)
    joined = np.concatenate([part for picture in small for part in (picture, line)][:-1], axis=1)
    buffer = BytesIO()
    Image.fromarray(joined).save(buffer, format="jpeg", quality=quality)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
