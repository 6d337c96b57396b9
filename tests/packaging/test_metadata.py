"""What an index and an installer are told about the package: nothing that is not so."""

from __future__ import annotations

import re
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent.parent
COMPATIBILITY = (ROOT / "docs" / "reference" / "compatibility.md").read_text(encoding="utf-8")


def said(subject: str) -> str:
    """Return what the page on compatibility says about something."""
    found = re.search(rf"^\| {subject} \| (.*) \|$", COMPATIBILITY, re.MULTILINE)
    assert found is not None
    return found[1]


def test_every_python_that_is_claimed_was_tried() -> None:
    """The classifiers and the page name the same Pythons."""
    claimed = [each for each in metadata("session-reuse").get_all("Classifier") or () if "Python :: 3." in each]
    assert ", ".join(each.rsplit(" ", 1)[1] for each in claimed) == said("Python")


@pytest.mark.parametrize(
    ("subject", "package"),
    [
        ("redis-py", "redis"),
        ("Playwright", "playwright"),
        ("browser-use", "browser-use"),
        ("Selenium", "selenium"),
        ("HTTP clients", "httpx"),
        ("HTTP clients", "httpx2"),
        ("HTTP clients", "requests"),
    ],
)
def test_every_version_that_is_promised_can_be_installed(subject: str, package: str) -> None:
    """The oldest version of a client that the page names is the one that an installer may choose."""
    (oldest,) = {
        found[1]
        for line in requires("session-reuse") or ()
        if (found := re.match(rf"{package}\b[^;]*>=([\d.]+)", line))
    }
    assert re.search(rf"(?<![\d.]){re.escape(oldest)}(?![\d.])", said(subject))


@pytest.mark.checkout
@pytest.mark.parametrize("package", ["redis", "typer"])
def test_a_package_whose_internals_are_used_has_an_upper_bound(package: str) -> None:
    """Its next minor version may rename them, and then nothing of ours would start."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (wanted,) = re.findall(rf'"{package}(>=[^"]*)"', text)
    assert re.fullmatch(r">=[\d.]+,<[\d.]+", wanted)
    assert SpecifierSet(wanted).contains(version(package))
