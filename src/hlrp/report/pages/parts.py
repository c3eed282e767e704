"""Building blocks of HTML report pages. Images are embedded, and no file is loaded. Pages have no script but those of
this library, and browsers run no other.

All functions escape the text they are given, except for `table`, whose cells are HTML.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hlrp.report.pages.style import CSS
from hlrp.report.verdicts.rows import Conclusion, Verdict
from hlrp.report.videos import video_data_uri


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Return a complete HTML page around the HTML `body`, with further CSS and a script of this library."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A browser runs the script with this digest and no other, should any text of a dataset ever become markup.
    runs = f"script-src 'sha256-{digest}'" if script else "script-src 'none'"
    policy = f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; {runs}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n{f'<script>{script}</script>' if script else ''}</body>\n</html>\n"
    )


def facts(numbers: Sequence[tuple[str, str]]) -> str:
    """Return tiles with a large number each and a few words below; `numbers` holds (number, words)."""
    tiles = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in numbers)
    return f'<div class="facts">{tiles}</div>'


def section(title: str, *parts: str) -> str:
    """Return a section with the heading `title` and the HTML `parts`."""
    return f"<section><h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f"<p>{escape(text)}</p>\n"


def concluded(conclusion: Conclusion) -> str:
    """Return a paragraph with the verdict on the whole model and the next step."""
    badge = f'<span class="{conclusion.word}">{conclusion.word}</span>'
    return (
        f'<p class="conclusion">{badge} {escape(conclusion.reason)}.<br>'
        f"<small>Next: {escape(conclusion.next_step)}.</small></p>\n"
    )


def judged(verdicts: Sequence[Verdict]) -> str:
    """Return a table with a row for each metric: its name and meaning, its value, the verdict and the threshold."""
    rows = []
    for verdict in verdicts:
        badge = verdict.word if verdict.word == "–" else f'<span class="{verdict.word}">{verdict.word}</span>'
        wanted = f"<small>{escape(verdict.wanted)}</small>"
        name = f"<b>{escape(verdict.name)}</b><br><small>{escape(verdict.meaning)}</small>"
        rows.append([name, escape(verdict.value), badge, wanted])
    return f'<div class="judged">{table(["metric", "value", "verdict", "wanted"], rows)}</div>\n'


def figure(caption: str, content: bytes) -> str:
    """Return an embedded PNG file with a caption."""
    picture = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. Header and cells are HTML, so the caller must escape plain text."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def video_tiles(videos: Mapping[str, Path]) -> str:
    """Return embedded videos side by side, each with its name in `videos` below; large ones as a smaller copy.

    Raises:
        FileNotFoundError: If a video does not exist.
        ValueError: If a video has no frames and must be encoded again.
    """
    tiles = "".join(
        f'<figure><video autoplay loop muted playsinline controls src="{video_data_uri(path)}"></video>'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, path in videos.items()
    )
    return f'<div class="videos">{tiles}</div>\n'
