"""Every program in the documentation runs and prints what the page says. Pages run on their own embedded server."""

from __future__ import annotations

import contextlib
import doctest
import io
import logging
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Example
from sybil.document import Document
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

from session_reuse import blocking
from session_reuse._background import Background
from tests.examples.test_examples import run_example

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
ENDED_BY_A_SIGNAL = {"shut-down"}
"""Their programs are run by test_shut_down.py."""
NEEDS = {"playwright": "playwright", "browser-use": "browser_use", "selenium": "selenium", "http-clients": "httpx"}

EXTRAS = {
    "browsers.playwright": "playwright", "browsers.playwright_sync": "playwright", "browsers.selenium": "selenium",
    "browsers.browser_use": "browser-use", "browsers.cdp": "cdp", "browsers.http_clients": "http", "testing": "testing",
}  # fmt: skip
"""The modules that cannot be imported, or used, without an extra."""

run_python = PythonEvaluator()
checker = doctest.OutputChecker()


def run(example: Example) -> None:
    """Run a program and remember what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run_python(example)
    example.namespace["__printed__"] = printed.getvalue()


def compare(example: Example) -> str | None:
    """Compare a block of output with what the program before it printed."""
    printed, wanted = example.namespace.get("__printed__", ""), example.parsed
    if checker.check_output(wanted, printed, doctest.ELLIPSIS):
        return None
    return f"the page says:\n{wanted}\nthe program prints:\n{printed}"


PARSERS = [CodeBlockParser(language="python", evaluator=run), CodeBlockParser(language="output", evaluator=compare)]


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the pages keep their sessions, each under its own prefix."""
    return f"embedded://{tmp_path_factory.mktemp('docs')}/redis"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, url: str, page: Path) -> Iterator[None]:
    """A page's own sessions and background loop. What it does to logging is undone."""
    monkeypatch.setenv("SESSION_REUSE_URL", url)
    monkeypatch.setenv("SESSION_REUSE_KEY_PREFIX", page.stem)
    for name in ("ATTEMPT", "CONNECT", "RESTORE", "SAVE"):
        monkeypatch.setenv(f"SESSION_REUSE_{name}_TIMEOUT", "5")
    monkeypatch.setattr(blocking, "background", Background())
    logger = logging.getLogger("session_reuse")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.redis
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.stem not in ENDED_BY_A_SIGNAL],
    ids=lambda page: str(page.relative_to(DOCS).with_suffix("")),
)
def test_the_programs_of_a_page_do_what_it_says(page: Path) -> None:
    """A copied program prints the output of the page."""
    pytest.importorskip(NEEDS.get(page.stem.removesuffix("-sync"), "session_reuse"))
    for example in Document.parse(str(page), *PARSERS):
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_a_program_fits_the_column_of_the_built_site(page: Path) -> None:
    """At 1366 pixels a box of code shows 88 characters, and hides the rest."""
    programs = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [line for program in programs for line in program.splitlines() if len(line) > 88] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_a_page_names_the_extras_that_its_programs_import(page: Path) -> None:
    """A reader arrives from a search engine, and has read no other page."""
    text = page.read_text(encoding="utf-8")
    programs = "".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    needed = {extra for module, extra in EXTRAS.items() if f"session_reuse.{module} import" in programs}
    lists = re.findall(r"session-reuse\[(.*?)\]|the extra `(.*?)`", text)
    named = {extra for both in lists for each in both for extra in each.split(",")}
    assert needed <= named


@pytest.mark.redis
def test_the_tutorial_ends_as_it_says(tmp_path: Path) -> None:
    """The last program of the tutorial prints the lines that the page explains."""
    (promised,) = [text for page, text in fences("text") if page.stem == "tutorial"]
    pattern = re.sub(r"\d\\\.\d{3}", r"\\d\.\\d{3}", re.escape(promised.strip()))
    printed = run_example("redis_goes_away", tmp_path)
    assert re.fullmatch(pattern, printed.strip()), printed


def fences(language: str) -> Iterator[tuple[Path, str]]:
    """Yield page and text of each block in a language."""
    for page in PAGES:
        for example in Document.parse(str(page), CodeBlockParser(language=language, evaluator=lambda _: None)):
            yield page, textwrap.dedent(example.parsed)


def commands() -> set[tuple[str, ...]]:
    """Return the words of each `session-reuse` command that a page shows, in blocks and in the running text."""
    found = set()
    lines = [line for _, block in fences("sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += [line[2:] for _, block in fences("console") for line in block.splitlines() if line.startswith("$ ")]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["session-reuse"]:
            ends = [words.index(end) for end in ("--", "|") if end in words]  # of the words of another program
            found.add(tuple(words[1 : min(ends, default=None)]))
    for page in PAGES:
        for part in page.read_text().split("`session-reuse ")[1:]:
            found.add(tuple(shlex.split(part.split("`")[0])))
    return found


def test_the_commands_that_pages_show_exist() -> None:
    """Every command and option that a page shows exists."""
    typer: Any = pytest.importorskip("typer")
    from session_reuse.cli.app import app

    root: Any = typer.main.get_command(app)
    for words in sorted(commands()):
        if words[0].startswith("--"):
            assert words[0] in {option for parameter in root.params for option in parameter.opts}
            continue
        command = root.get_command(None, words[0])
        assert command is not None, f"session-reuse {' '.join(words)}"
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word.split("=")[0] for word in words[1:] if word.startswith("-")}
        assert options <= known | {"--help"}, f"session-reuse {' '.join(words)}"


def test_no_page_is_empty_or_unreachable() -> None:
    """Every page is linked from an index page, from which the table of contents is made."""
    listings = [page for page in PAGES if page.stem == "index"]
    links = {page.parent / link for page in listings for link in re.findall(r"\]\(([\w/-]+\.md)\)", page.read_text())}
    assert set(PAGES) - links == {DOCS / "index.md"}
    assert all(len(page.read_text()) > 100 for page in PAGES)
