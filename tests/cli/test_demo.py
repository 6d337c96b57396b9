"""`demo`: it shows what it promises with real agents, keeps its word about reuse, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from session_reuse.cli.demo.record import Kind, Run, Start
from session_reuse.outcome import Outcome
from tests.cli.conftest import CommandLine
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer

QUICK = ("--think", "0.01", "--outage", "0.3")


def demo(folder: Path, *words: str) -> Any:
    """Run the demo and return what it says."""
    answer = CommandLine("embedded://")("demo", "--json", "--output", str(folder), *QUICK, *words)
    assert (answer.code, answer.err) == (0, "")
    return answer.json


@pytest.mark.slow
def test_demo_keeps_its_promise_and_a_second_run_reuses_the_first(tmp_path: Path) -> None:
    """One login, then reuse, also over an outage; the next run starts logged in, and --fresh forgets."""
    first = demo(tmp_path, "--http", "--agents", "1", "--cycles", "3")
    assert (first["starts"], first["failed"], first["saves_lost"]) == (3, 0, 0)
    assert first["outage"]["back_at"] - first["outage"]["killed_at"] >= 0.3
    assert (first["found_from_earlier_run"], first["cycles"][0]["outcome"]) == (0, "missing")
    assert first["slowest_enter"] < 1.0  # the budget and this busy machine; tests/chaos measure it
    assert Path(first["chart"]).read_bytes().startswith(b"\x89PNG")
    second = demo(tmp_path, "--http", "--agents", "1", "--cycles", "1", "--outage", "0")
    assert (second["found_from_earlier_run"], second["reused"], second["outage"]) == (1, 1, None)
    third = demo(tmp_path, "--http", "--agents", "1", "--cycles", "2", "--outage", "0", "--fresh")
    assert (third["logins"], third["reused"]) == (1, 1)


@pytest.mark.browser
@pytest.mark.slow
def test_demo_with_a_real_browser(tmp_path: Path) -> None:
    """Cookie and localStorage come back in Chromium: the page's own script finds its token."""
    seen = demo(tmp_path, "--agents", "1", "--cycles", "2", "--outage", "0")
    assert seen["agent"].startswith("Chromium")
    assert [cycle["kind"] for cycle in seen["cycles"]] == ["login", "reused"]


def test_demo_without_a_browser_says_so_and_goes_on(tmp_path: Path, redis_server: RedisServer) -> None:
    """A machine without Chromium sees the same with an HTTP client; a Redis that is given is used and not killed."""
    words = ("demo", "--agents", "1", "--cycles", "2", "--think", "0", "--output", str(tmp_path))
    answer = CommandLine(redis_server.url)(
        *words, "--url", redis_server.url, SESSION_REUSE_CHROMIUM="/nowhere/chromium"
    )
    assert answer.code == 0
    assert "no browser" in answer.err
    assert "HTTP client" in answer.out
    assert "reuse rate 50%" in answer.out
    assert redis_server.running
    with redis_server.client() as client:
        assert client.exists("session-reuse-demo:session:shop.demo/alice@http")


def test_demo_without_anything_to_drive_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has installed the command line alone is told what is missing, instead of watching agents fail."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    answer = CommandLine("embedded://")("demo", "--http", "--output", str(tmp_path), *QUICK)
    assert answer.code != 0
    assert "session-reuse[demo]" in answer.err
    assert "failed" not in answer.out


@pytest.mark.slow
@pytest.mark.parametrize("during_outage", [False, True])
def test_interrupted_demo_leaves_no_process(tmp_path: Path, during_outage: bool) -> None:
    """Ctrl-C ends agents, site and Redis, also while that Redis is dead, and gives 130."""
    words = ["--http", "--agents", "2", "--cycles", "4", "--think", "0.01", "--outage", "30"]
    command = [sys.executable, "-m", "session_reuse", "demo", "--output", str(tmp_path), *words]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            assert running.stdout is not None
            sign = "killed with SIGKILL" if during_outage else "had to log in"
            assert any(sign in line for line in iter(running.stdout.readline, ""))
            running.send_signal(signal.SIGINT)
            rest, errors = running.communicate(timeout=20)
        finally:
            running.kill()
    assert running.returncode == 130, rest + errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not _processes_of(tmp_path), timeout=10.0, message="the demo's Redis has ended")


def _processes_of(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words or str(process.info["cwd"] or "").startswith(str(folder)):
            found.append(process.info["pid"])
    return found


def test_numbers_of_a_run_are_what_happened() -> None:
    """Medians, rates and kinds follow from the starts, whatever is missing."""
    assert (Run("x").reuse_rate, Run("x").ratio, Run("x").slowest_enter, Run("x").is_good) == (0.0, None, 0.0, False)
    starts = [
        Start(0, 0, 0.0, 0.1, 2.0, 3.0, Outcome.MISSING, logged_in=True),
        Start(0, 1, 3.0, 3.2, 4.0, 5.0, Outcome.REUSED),
        Start(0, 2, 5.0, 5.1, 7.0, 8.0, Outcome.UNAVAILABLE, logged_in=True),
        Start(0, 3, 8.0, 8.1, 9.0, 9.5, Outcome.REUSED, logged_in=True),
        Start(0, 4, 9.5, error="TimeoutError"),
    ]
    run = Run("x", starts=starts)
    assert [start.kind for start in starts] == [Kind.LOGIN, Kind.REUSED, Kind.DEGRADED, Kind.LOGIN, Kind.FAILED]
    assert (run.login_median, run.reuse_median, run.ratio) == (2.0, 1.0, 2.0)
    assert run.slowest_enter == pytest.approx(0.2)
    assert not run.is_good
