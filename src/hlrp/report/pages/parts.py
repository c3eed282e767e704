"""Pieces of a page that loads nothing: pictures are inside, and there is no script.

Text is escaped here; the cells of a table are HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from hlrp.report.pages.style import CSS
from hlrp.report.verdicts import Conclusion, Verdict


def page(title: str, body: str) -> str:
    """A complete page around `body`."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def facts(shown: Sequence[tuple[str, str]]) -> str:
    """Large figures, each with a few words below."""
    tiles = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in shown)
    return f'<div class="facts">{tiles}</div>'


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it."""
    return f"<section><h2>{escape(title)}</h2>\n{''.join(parts)}</section>\n"


def paragraph(text: str) -> str:
    """A few sentences."""
    return f"<p>{escape(text)}</p>\n"


def concluded(conclusion: Conclusion) -> str:
    """The verdict on the whole, and what to do next."""
    badge = f'<span class="{conclusion.word}">{conclusion.word}</span>'
    return (
        f'<p class="conclusion">{badge} {escape(conclusion.reason)}.<br>'
        f"<small>Next: {escape(conclusion.next_step)}.</small></p>\n"
    )


def judged(verdicts: Sequence[Verdict]) -> str:
    """A row for each figure: what it means, its value, and whether it is good enough."""
    rows = []
    for verdict in verdicts:
        badge = verdict.word if verdict.word == "–" else f'<span class="{verdict.word}">{verdict.word}</span>'
        wanted = f"<small>{escape(verdict.wanted)}</small>"
        name = f"<b>{escape(verdict.name)}</b><br><small>{escape(verdict.meaning)}</small>"
        rows.append([name, escape(verdict.value), badge, wanted])
    return f'<div class="judged">{table(["figure", "value", "verdict", "wanted"], rows)}</div>\n'


def figure(caption: str, content: bytes) -> str:
    """A PNG file with its caption."""
    picture = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{picture}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML: escape what goes in."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'
