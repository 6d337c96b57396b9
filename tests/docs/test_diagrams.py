"""Diagrams fit the column of a page, and their texts touch no border, as Chromium draws them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from session_reuse.browsers.chromium import find_chromium, launch_arguments

DIAGRAMS = sorted((Path(__file__).parents[2] / "docs" / "_static").glob("*.svg"))
COLUMN = 736
"""Width in pixels of the text column of the built site. A wider diagram is cut, and scrolls."""
MISPLACED = """() => {
    const svg = document.querySelector('svg'), view = svg.viewBox.baseVal
    const inside = (a, b) => a.x >= b.x && a.y >= b.y && a.x + a.width <= b.x + b.width && a.y + a.height <= b.y + b.height
    const apart = (a, b) => a.x + a.width < b.x || b.x + b.width < a.x || a.y + a.height < b.y || b.y + b.height < a.y
    const boxes = [...svg.querySelectorAll('rect.box')].map(each => each.getBBox())
    const texts = [...svg.querySelectorAll('text')].map(each => [each.textContent, each.getBBox()])
    const wrong = texts.filter(([, box]) => !inside(box, view) || boxes.some(b => !inside(box, b) && !apart(box, b)))
    const pairs = texts.filter(([, a], i) => texts.some(([, b], k) => k > i && !apart(a, b)))
    return [...wrong, ...pairs].map(([text]) => text)
}"""


def test_there_are_diagrams() -> None:
    """An empty list would pass everything below."""
    assert {path.stem for path in DIAGRAMS} >= {"breaker", "enter", "layers", "sequence"}


@pytest.mark.parametrize("path", DIAGRAMS, ids=lambda path: path.stem)
def test_a_diagram_fits_the_column(path: Path) -> None:
    """The reader of the built site sees all of it without scrolling."""
    (width,) = re.findall(r'<svg [^>]*\bwidth="(\d+)"', path.read_text(encoding="utf-8"))
    assert int(width) <= COLUMN


@pytest.mark.browser
def test_no_text_of_a_diagram_is_cut_or_on_a_border() -> None:
    """Each text lies inside the picture, inside or outside of a box, and on no other text."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=find_chromium(), args=launch_arguments())
        page = browser.new_page()
        found = {}
        for path in DIAGRAMS:
            page.set_content(path.read_text(encoding="utf-8"))
            found[path.stem] = page.evaluate(MISPLACED)
        browser.close()
    assert found == {path.stem: [] for path in DIAGRAMS}
