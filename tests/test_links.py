"""Links between the files that GitHub shows: every file exists, and every anchor is a heading as GitHub names it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pretrained/README.md")


def text_of(page: Path) -> str:
    """Text of a page without its blocks of code, in which # starts a comment."""
    return re.sub(r"^(`{3,}).*?^\1`*\s*$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page: letters, digits, - and _ in lower case; a repeated one is numbered."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text_of(page), flags=re.MULTILINE):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if (f"{name}-{n}" if n else name) not in found)
        found.add(f"{name}-{number}" if number else name)
    return found


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    assert "](" in (ROOT / page).read_text(encoding="utf-8")
    assert broken_links(ROOT / page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# What *video* adds? (2026-11-26)\n## Twice\n## Twice\n```bash\n# no heading\n[a](in_code)\n```\n"
        "[a](page.md#what-video-adds-2026-11-26) [b](#twice-1) [c](https://example.org/x#y) ![d](a%20b.png)\n"
        "[e](lost.md) [f](#no-heading) [g](#twice-2) [h](a%20b.png#x)\n",
        encoding="utf-8",
    )
    (tmp_path / "a b.png").touch()
    assert broken_links(page) == ["lost.md", "#no-heading", "#twice-2", "a%20b.png#x"]
