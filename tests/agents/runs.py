"""Starts `session-reuse run`, and finds what remains of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from session_reuse import SessionManager, reusable_session
from tests.chaos.hours.network import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.site import Site

ROOT = Path(__file__).parents[2]
ALICE = "shop.example/alice"
AGENT = [sys.executable, "-m", "tests.agents.agent"]
LIMIT = 100
"""Seconds for a run. With a check that fails it starts two browsers: 60 were too few at a low priority (2026-11-26)."""


class Runs:
    """Starts `session-reuse run` on one store, with its own folder for temporary files."""

    def __init__(self, url: str, folder: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "SESSION_REUSE_URL": url, "TMPDIR": folder, "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1",
            **{f"SESSION_REUSE_{name}_TIMEOUT": "5" for name in ("ATTEMPT", "CONNECT", "RESTORE", "SAVE", "CLOSE")},
        }  # fmt: skip

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a run. Words before `--` are options."""
        command = [sys.executable, "-m", "session_reuse.cli", "run", ALICE, *words]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=self.environment, **{**streams, **options})

    def run(self, *words: str, given: str = "") -> tuple[int, str, dict[str, Any]]:
        """Return exit code, standard output and report of a run."""
        with self.start(*words) as process:
            out, err = finished(process, given)
        return process.returncode, out, report_of(err)

    @property
    def leftovers(self) -> list[str]:
        """What is left of browsers: processes, and folders."""
        folders = [name for name in os.listdir(self.folder) if "chromium" in name or name.startswith("session-reuse-")]
        return [str(each) for each in processes_with(f"{self.folder}/session-reuse-")] + folders


def finished(process: subprocess.Popen[str], given: str = "") -> tuple[str, str]:
    """Return the output and the errors of a run that ends. One that hangs is ended, and its and its agent's stacks are in the error."""
    try:
        return process.communicate(given, LIMIT)
    except subprocess.TimeoutExpired:
        for each in (*children_of(process.pid), process.pid):
            if b"tests.agents" in _command_of(each) or each == process.pid:
                os.kill(each, signal.SIGABRT)
        _, err = process.communicate(timeout=LIMIT)
        raise AssertionError(f"the run did not end within {LIMIT} s:\n{err}") from None


def report_of(err: str) -> dict[str, Any]:
    """Return the JSON line at the end of standard error."""
    found: dict[str, Any] = json.loads(err.strip().splitlines()[-1])
    return found


@contextmanager
def staying(runs: Runs, site: Site, *words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Yield a run whose agent has logged in and stays."""
    with runs.start(*words, "--", *AGENT, "stay", site.url(), **options) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "done welcome"
            yield process
        finally:
            process.kill()


def agent_of(runs: Runs) -> int:
    """Return the process of the agent: it has the address of the browser in its environment."""
    (found,) = [
        each
        for each in processes_with("tests.agents.agent")
        if b"CDP_WS=" in _environment_of(each) and f"TMPDIR={runs.folder}".encode() in _environment_of(each)
    ]
    return found


def _environment_of(process: int) -> bytes:
    return _read(process, "environ")


def _command_of(process: int) -> bytes:
    return _read(process, "cmdline")


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:
        return b""


def patient(url: str) -> SessionManager:
    """Return a manager that waits. A loaded machine takes longer than an agent would: 1 read of 55 (2026-11-26)."""
    return SessionManager(
        url, registry=None, attempt_timeout=10, connect_timeout=10, restore_timeout=10, save_timeout=10
    )


def store(url: str, state: dict[str, Any]) -> None:
    """Store a state as the one of the session."""

    async def save() -> None:
        async with patient(url) as manager, reusable_session(ALICE, manager=manager) as session:
            session.storage_state = state

    asyncio.run(save())


def stored(url: str) -> dict[str, Any]:
    """Return the stored state of the session."""

    async def read() -> dict[str, Any]:
        async with patient(url) as manager:
            session = await manager.restore(ALICE)
            assert session is not None
            return dict(session.storage_state)

    return asyncio.run(read())


def processes_with(text: str) -> list[int]:
    """Return the processes of this machine that have a text in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
