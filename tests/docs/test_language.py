"""Pages are written for a reader in a hurry: short, in plain English, addressed to the reader."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def prose(text: str) -> str:
    """Return a page without code, tables and headings."""
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"^[|#].*$", " ", text, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`", "code", text)


def words(text: str) -> int:
    """Return the number of words."""
    return len(re.findall(r"[A-Za-z']+", text))


def test_the_concepts_fit_one_sitting() -> None:
    """Six terms, one diagram, under 500 words, and the first sentence explains the fingerprint."""
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert words(page) < 500
    assert len(re.findall(r"^\| \*\*\w+\*\* \|", page, re.MULTILINE)) == 6
    assert len(re.findall(r"!\[", page)) == 1
    assert page.split("\n\n")[1].startswith("A fingerprint is the name of a login")


def test_pages_address_the_reader_in_plain_sentences() -> None:
    """Over all pages: "you" at least 15 times and a semicolon at most twice in 1000 words."""
    text = "\n".join(prose(page.read_text(encoding="utf-8")) for page in PAGES)
    thousands = words(text) / 1000
    assert len(re.findall(r"\byour?\b", text, re.IGNORECASE)) / thousands >= 15
    assert text.count(";") / thousands <= 2
