"""The options of `session-reuse run`, each in a real browser: where it runs, what it is lent, what it saves, what the command is given."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from session_reuse.browsers._chromium_process import ChromiumProcess
from session_reuse.cli.commands import run
from tests.agents.runs import AGENT, Runs, stored
from tests.agents.tab import words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.clients.site import Site
    from tests.harness.servers import RedisServer

pytestmark = [pytest.mark.browser, pytest.mark.redis]


@pytest.fixture
def websocket_url() -> Iterator[str]:
    """The address of a browser that others have started."""
    process = ChromiumProcess()
    try:
        yield asyncio.run(process.websocket())
    finally:
        process.stop()


def test_a_browser_that_runs_is_used_and_stays_open(
    logged_in_runs: Runs, site: Site, redis_server: RedisServer, websocket_url: str
) -> None:
    """With `--cdp-url` the command is logged in there, and what it does is saved. The browser goes on."""
    there = ("--cdp-url", websocket_url)
    code, out, report = logged_in_runs.run(*there, "--", *AGENT, "look", site.url())
    assert (code, out.strip(), report["outcome"]) == (0, site.EVERYWHERE, "reused")
    code, _, report = logged_in_runs.run(*there, "--", *AGENT, "set", site.url(), "seen")
    assert (code, report["save_outcome"] in {"saved", "merged"}) == (0, True)
    (origin,) = stored(redis_server.url)["origins"]
    assert {"token", "seen"} <= {item["name"] for item in origin["localStorage"]}
    assert words(websocket_url, site.url()) == site.WITHOUT_TAB


def test_a_login_that_is_lent_without_saving_stays_as_it_was(
    logged_in_runs: Runs, site: Site, redis_server: RedisServer
) -> None:
    """`--save never`: the command is logged in, and nothing that it does is stored."""
    before = stored(redis_server.url)
    code, _, report = logged_in_runs.run("--save", "never", "--", *AGENT, "set", site.url(), "mine")
    assert (code, report["outcome"], report["save_outcome"]) == (0, "reused", "skipped")
    assert stored(redis_server.url) == before


def test_a_confined_command_has_the_one_login_and_reaches_no_other_host(
    logged_in_runs: Runs, site: Site, redis_server: RedisServer
) -> None:
    """`--allow`: the same page reaches the other host in a browser that is not confined."""
    other = site.url("/me", host="other")
    fetch = ("--", *AGENT, "fetch", site.url(), other)
    assert logged_in_runs.run(*fetch)[1].splitlines() == ["reached", site.EVERYWHERE]
    site.seen_cookies.clear()
    before = stored(redis_server.url)
    code, out, report = logged_in_runs.run("--allow", "shop.localhost", *fetch)
    assert (code, out.splitlines(), report["outcome"]) == (0, ["refused", site.EVERYWHERE], "reused")
    assert {host for host, _ in site.seen_cookies} == {"shop"}
    assert stored(redis_server.url)["cookies"] == before["cookies"]
    code, out, _ = logged_in_runs.run("--allow", "elsewhere.localhost", "--", "echo", "ran")
    assert (code, out) == (0, "ran\n")
    assert stored(redis_server.url)["cookies"] == before["cookies"]


def test_every_program_finds_the_address_under_its_own_name(runs: Runs) -> None:
    """The variables that the common programs read."""
    show = "import json, os, sys; print(json.dumps({name: os.environ.get(name) for name in sys.argv[1:]}))"
    http = (
        "PLAYWRIGHT_MCP_CDP_ENDPOINT", "AGENT_BROWSER_CDP", "BU_CDP_URL", "BROWSER_REMOTE_DEBUGGING_URL", "CDP_URL",
        "CDP_ENDPOINT", "SESSION_REUSE_CDP_URL",
    )  # fmt: skip
    websocket = ("BU_CDP_WS", "SESSION_REUSE_CDP_WS")
    names = (*http, *websocket, "BROWSER_TYPE")
    code, out, _ = runs.run("--", "sh", "-c", 'exec "$@"; echo {cdp} {ws}', "sh", sys.executable, "-c", show, *names)
    assert code == 0
    found = json.loads(out)
    assert found["BROWSER_TYPE"] == "cdp-connect"
    (address,) = {found[name] for name in http}
    (socket,) = {found[name] for name in websocket}
    assert address.startswith("http://127.0.0.1:")
    assert socket.startswith(address.replace("http", "ws") + "/devtools/browser/")


@pytest.mark.parametrize(("words", "is_headless"), [((), True), (("--headed",), False)])
def test_a_browser_that_is_to_be_seen_has_a_window(
    runs: Runs, tmp_path: Path, words: tuple[str, ...], is_headless: bool
) -> None:
    """`--headed` takes `--headless` away. The flags are seen by a program in Chromium's place, which then ends."""
    fake, flags = tmp_path / "chromium", tmp_path / "flags"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {flags}\nexit 1\n')
    fake.chmod(0o755)
    runs.environment |= {"SESSION_REUSE_CHROMIUM": str(fake), "DISPLAY": os.environ.get("DISPLAY", ":0")}
    code, out, report = runs.run(*words, "--", "echo", "ran")
    assert (code, out) == (2, "")
    assert "message" in report
    assert {"--headless" in line for line in flags.read_text().splitlines()} == {is_headless}


async def test_a_signal_to_a_command_that_has_just_ended_takes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of asyncio asks for the exit code first. The command then seemed to have ended with 255."""
    told: list[tuple[int, int]] = []

    def kill(process: int, number: int) -> None:
        told.append((process, number))
        raise ProcessLookupError

    child = run._Child()
    child._process = SimpleNamespace(pid=1, returncode=None)  # type: ignore[assignment]
    monkeypatch.setattr(os, "kill", kill)
    child._receive(signal.SIGTERM)
    assert told == [(1, signal.SIGTERM)]
