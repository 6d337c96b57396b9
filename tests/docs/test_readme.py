"""The programs and commands of README work."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from session_reuse.browsers.chromium import find_chromium, launch_arguments
from tests.harness.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_in_the_readme_exists() -> None:
    """The two scripts can be run, and the command line has the listed commands."""
    for command in re.findall(r"^(scripts/\w+)", README, re.MULTILINE):
        assert (ROOT / command).stat().st_mode & 0o111
    import typer

    from session_reuse.cli.app import app

    root: Any = typer.main.get_command(app)
    listed = re.search(r"\| Command line \| (.*?) \|", README)
    assert listed is not None
    assert {name.split()[-1] for name in re.findall(r"`([^`]+)`", listed[1])} == set(root.list_commands(None))


def test_the_first_screen_goes_from_what_it_is_to_the_commands() -> None:
    """The order: purpose, install line, program without a browser, Playwright, the two commands, why no file."""
    marks = (
        "keeps the browser session",
        "pip install '.[",
        "asyncio.run(agent())",
        "open_context",
        "scripts/demo",
        "`storage_state` file",
        "## ",
    )
    places = [README.index(mark, README.index("\n")) for mark in marks]
    assert places == sorted(places)


@pytest.mark.redis
@pytest.mark.browser
def test_the_playwright_program_is_reused_the_second_time(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program runs word for word. Only the browser is the one of the tests."""
    from playwright.async_api import BrowserType

    launch = BrowserType.launch

    def launch_ours(browser_type: BrowserType, **options: Any) -> Any:
        return launch(browser_type, executable_path=find_chromium(), args=launch_arguments(), **options)

    monkeypatch.setattr(BrowserType, "launch", launch_ours)
    monkeypatch.setenv("SESSION_REUSE_URL", redis_server.url)
    monkeypatch.setenv("SESSION_REUSE_RESTORE_TIMEOUT", "5")
    monkeypatch.setenv("SESSION_REUSE_ATTEMPT_TIMEOUT", "2")
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "open_context" in block]
    for _ in range(2):
        exec(compile(program, "README.md", "exec"), {"asyncio": asyncio})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("False ")
    assert second.startswith("True ")
