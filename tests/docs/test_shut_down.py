"""The page on shutting down: each of its programs gets the signal, and its work is in Redis afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from session_reuse import Config, blocking
from session_reuse._browser import limits
from tests.harness.servers import RedisServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "shut-down.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HANDLERS = re.compile(r"^.*signal\.(SIGTERM|signal).*\n", re.MULTILINE)


def stopped(program: str, number: signal.Signals, url: str, folder: Path) -> tuple[int, str]:
    """Run a program, send it a signal while it works, and return its exit code and what it wrote to standard error."""
    file = folder / "agent.py"
    file.write_text(program)
    patient = {f"SESSION_REUSE_{name}_TIMEOUT": "5" for name in ("ATTEMPT", "CONNECT", "RESTORE", "SAVE")}
    environment = {**os.environ, **patient, "PYTHONPATH": str(ROOT), "SESSION_REUSE_URL": url}
    with subprocess.Popen(
        [sys.executable, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "working\n"
            running.send_signal(number)
            _, errors = running.communicate(timeout=100)
        finally:
            running.kill()
    return running.returncode, errors


def names_in(program: str) -> list[str]:
    """Return the accounts whose agents work in a program."""
    return re.findall(r'"(alice|bob|carol)"', program) or ["alice"]


def steps(url: str, names: list[str]) -> list[object]:
    """Return what each session's agent noted before the signal."""
    with blocking.SessionManager(url, registry=None, attempt_timeout=5, restore_timeout=10) as manager:
        found = [manager.restore(f"shop.example/{name}") for name in names]
    return [None if session is None else session.data.get("step") for session in found]


def test_the_page_shows_each_kind_of_program() -> None:
    """Asynchronous, many agents, synchronous, threads."""
    assert len(PROGRAMS) == 4


@pytest.mark.redis
@pytest.mark.parametrize("number", range(4))
def test_a_program_of_the_page_is_saved_at_a_sigterm(number: int, redis_server: RedisServer, tmp_path: Path) -> None:
    """The work since the last checkpoint is in Redis afterwards, and nothing was left behind on standard error."""
    program = PROGRAMS[number]
    code, errors = stopped(program, signal.SIGTERM, redis_server.url, tmp_path)
    assert (code in {143, 0}, errors) == (True, "")
    names = names_in(program)
    assert steps(redis_server.url, names) == [1] * len(names)


@pytest.mark.redis
@pytest.mark.parametrize("number", range(3))
def test_a_program_without_a_handler_is_saved_at_a_sigint(
    number: int, redis_server: RedisServer, tmp_path: Path
) -> None:
    """What the page asks Docker, systemd and others to send needs no line of code."""
    program = HANDLERS.sub("", PROGRAMS[number])
    assert "SIGTERM" not in program
    stopped(program, signal.SIGINT, redis_server.url, tmp_path)
    names = names_in(program)
    assert steps(redis_server.url, names) == [1] * len(names)


@pytest.mark.redis
def test_a_sigterm_without_a_handler_loses_the_work(redis_server: RedisServer, tmp_path: Path) -> None:
    """The page's reason to exist: should Python change that, the page has to change too."""
    program = HANDLERS.sub("", PROGRAMS[0])
    code, _ = stopped(program, signal.SIGTERM, redis_server.url, tmp_path)
    assert code == -signal.SIGTERM
    assert steps(redis_server.url, ["alice"]) == [None]


def test_the_times_of_the_page_are_those_of_the_settings() -> None:
    """And the time before SIGKILL is longer than all of them together."""
    config = Config()
    for name in ("capture_timeout", "verify_timeout", "save_timeout", "attempt_timeout", "close_timeout"):
        assert f"`{name}` ({getattr(config, name):g} s)" in PAGE
    browser = limits.CAPTURE + limits.CONTEXT
    assert f"| a browser is captured and closed | {browser:g} s |" in PAGE
    waits = config.capture_timeout + config.verify_timeout + config.save_timeout
    longest = browser + waits + 2 * (config.attempt_timeout + config.close_timeout)
    for pattern in (
        r"stop_grace_period: (\d+)s",
        r"terminationGracePeriodSeconds: (\d+)",
        r"TimeoutStopSec=(\d+)",
        r"--time (\d+)",
    ):
        (seconds,) = re.findall(pattern, PAGE)
        assert int(seconds) > longest
