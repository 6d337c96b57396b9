"""The demo shows what it promises with real agents, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.demo.record import Kind, Run, Start
from session_reuse.outcome import Outcome
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer

ROOT = Path(__file__).parents[2]
DEMO = (sys.executable, "-m", "examples.demo")
QUICK = ("--think", "0.01", "--outage", "0.3")


def run_demo(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*DEMO, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, timeout=140, check=False,
    )  # fmt: skip


def demo(folder: Path, *words: str) -> Any:
    """Return the result of a run, which must have succeeded."""
    done = run_demo("--json", "--output", str(folder), *QUICK, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.slow
def test_demo_keeps_its_promise_and_a_second_run_reuses_the_first(tmp_path: Path) -> None:
    """One login, then reuse, also over an outage. The next run starts logged in, and --fresh forgets."""
    first = demo(tmp_path, "--http", "--agents", "1", "--cycles", "3")
    assert (first["starts"], first["failed"], first["saves_lost"]) == (3, 0, 0)
    assert first["outage"]["back_at"] - first["outage"]["killed_at"] >= 0.3
    assert (first["found_from_earlier_run"], first["cycles"][0]["outcome"]) == (0, "missing")
    assert first["slowest_enter"] < 5.0  # 1.2 s seen on a loaded machine. tests/chaos measures the budget
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


def test_without_a_browser_the_demo_uses_an_http_client(tmp_path: Path, redis_server: RedisServer) -> None:
    """A machine without Chromium gets the same demo. A Redis that is given is used and not killed."""
    words = ("--agents", "1", "--cycles", "2", "--think", "0", "--output", str(tmp_path), "--url", redis_server.url)
    done = run_demo(*words, SESSION_REUSE_CHROMIUM="/nowhere/chromium", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "no browser" in done.stderr
    assert "HTTP client" in done.stdout
    assert "reuse rate 50%" in done.stdout
    assert redis_server.running
    with redis_server.client() as client:
        assert client.exists("session-reuse-demo:session:shop.demo/alice@http")


@pytest.mark.slow
@pytest.mark.parametrize("during_outage", [False, True])
def test_interrupted_demo_leaves_no_process(tmp_path: Path, during_outage: bool) -> None:
    """Ctrl-C ends agents, site and Redis, also while that Redis is dead, and gives 130."""
    words = ["--http", "--agents", "2", "--cycles", "4", "--think", "0.01", "--outage", "30"]
    command = [*DEMO, "--output", str(tmp_path), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        try:
            assert running.stdout is not None
            sign = "killed with SIGKILL" if during_outage else "had to log in"
            assert any(sign in line for line in iter(running.stdout.readline, ""))
            running.send_signal(signal.SIGINT)
            rest, errors = running.communicate(timeout=100)
        finally:
            running.kill()
    assert running.returncode == 130, rest + errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    wait_until(lambda: not _processes_of(tmp_path), message="the demo's Redis has ended")


def _processes_of(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words or str(process.info["cwd"] or "").startswith(str(folder)):
            found.append(process.info["pid"])
    return found


def test_numbers_of_a_run_are_what_happened() -> None:
    """Medians, rates and kinds follow from the starts."""
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
