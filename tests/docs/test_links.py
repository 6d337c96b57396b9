"""Links between pages lead to a file and a heading, on a code host as on the built site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import session_reuse

ROOT = Path(__file__).parents[2]
PACKAGE = Path(session_reuse.__file__).parent
"""Beside the tests in a checkout, elsewhere for an installed wheel."""
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for folder in ("docs", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
]
PAGES = [page for page in PAGES if "_build" not in page.parts]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:benchmarks|docs|examples|scripts|tests)/[\w./-]+|session_reuse/[\w./-]*(?:\.\w+|/))`")
ROOM = re.compile(r"`((?:_?\w+/)*_?\w+\.(?:py|lua|js)|(?:_?\w+/)+)`")
ROOMS = [ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", ROOT / "docs" / "explanation" / "architecture.md"]
EXTERNAL = ("https://", "http://", "mailto:")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that a code host and MyST make of the headings."""
    headings = re.findall(r"^#{1,6} (.*)$", prose(page), re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.add(slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    """The file exists, and the heading is in it."""
    broken = []
    for target in LINK.findall(prose(page)):
        if target.startswith(EXTERNAL):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    """A reader opens the file that the text names."""
    assert [
        path for path in PATH.findall(prose(page)) if not any((root / path).exists() for root in (ROOT, PACKAGE.parent))
    ] == []


@pytest.mark.parametrize("page", ROOMS, ids=lambda page: page.name)
def test_every_room_that_a_page_names_exists(page: Path) -> None:
    """A maintainer finds the module that the map names."""
    roots = (ROOT, PACKAGE)
    named = {name for name in ROOM.findall(page.read_text(encoding="utf-8")) if not PATH.fullmatch(f"`{name}`")}
    assert {name for name in named if not any((root / name).exists() for root in roots)} == set()
