"""A Chromium with a profile folder of its own; neither outlives this process, however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Final

from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from session_reuse._browser.drivers.connection import Transport

START_LIMIT: Final = 30.0
"""Seconds until Chromium must answer: a cold disk on a busy machine took 11 (measured 2026-11)."""
_POLL_INTERVAL: Final = 0.005
_GUARD_LIMIT: Final = 10.0
_LEAST_SPACE: Final = 16 * 1024 * 1024
_LONGEST_TEMPORARY: Final = 50
"""Characters of a path under which Chromium can have its socket; the system allows 108 in all."""
_LOG: Final = "session-reuse.log"
OWN_FLAGS: Final = (
    "--remote-debugging-port=0",
    "--password-store=basic",
    "--use-mock-keychain",
    # Playwright waits for a load event that a page out of this cache does not have: `go_back` took its 30 s and raised (1.65).
    # It starts its own browsers with this flag.
    "--disable-back-forward-cache",
    # Pages of the address bar, for each start: 0.56 of the 1.12 s that it takes a processor (Chromium 156, 2026-11-26).
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
)
# The guard reads until its standard input ends, which the system does for us when we are killed. `rm` is repeated because
# processes that are being killed may still write.
_GUARD: Final = """
trap '' HUP INT QUIT TERM
target=
while read -r line; do target=$line; done
[ -z "$target" ] || kill -s KILL -- "$target" 2>/dev/null
tries=0
while [ -n "$1" ] && ! rm -rf -- "$1" 2>/dev/null && [ "$tries" -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"""


class ProcessGuard:
    """A process that kills a process group and removes a folder when this process ends, by `kill -9` too.

    Args:
        folder: to remove; empty for none.
    """

    def __init__(self, folder: str = "") -> None:
        self._shell = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", _GUARD, "session-reuse-guard", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def watch(self, target: int) -> None:
        """Kill this process at the end, or the whole group for a negative number; the last call counts."""
        if self._shell.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the guard was killed: nothing to hand over
                self._shell.stdin.write(f"{target}\n".encode())
                self._shell.stdin.flush()

    def release(self) -> None:
        """Kill and remove now."""
        if self._shell.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._shell.stdin.close()
        try:
            self._shell.wait(_GUARD_LIMIT)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()

    def dismiss(self) -> None:
        """End the guard; nothing is killed or removed."""
        self._shell.kill()
        self.release()


class ChromiumProcess:
    """A running Chromium.

    Args:
        executable: a path or a name on PATH; looked for if not given.
        arguments: more flags.
        headless: None for headless where there is no display.

    Attributes:
        folder: the profile, removed at the end.
        process: the browser.
        for_clients: its address, once it listens.
        is_own: it was started for a session.

    Raises:
        AdapterError: there is no Chromium, or no room for its profile.
    """

    is_own: Final = True

    def __init__(
        self, executable: str | Path | None = None, arguments: Sequence[str] = (), *, headless: bool | None = None
    ) -> None:
        self.for_clients = ""
        command = [find_chromium(executable), *launch_arguments(), *OWN_FLAGS]
        if headless if headless is not None else not has_display():
            command.append("--headless=new")
        try:
            self.folder = tempfile.mkdtemp(prefix="session-reuse-")
        except OSError as error:
            raise AdapterError(f"no folder for the browser's profile: {error}") from None
        if shutil.disk_usage(self.folder).free < _LEAST_SPACE:  # Chromium would wait for ever
            os.rmdir(self.folder)
            raise AdapterError(f"the disk of {tempfile.gettempdir()} is full: set TMPDIR to another folder")
        self._guard = ProcessGuard(self.folder)
        try:
            with open(os.path.join(self.folder, _LOG), "wb") as log:
                self.process = subprocess.Popen(  # noqa: S603  (the browser that the user has named)
                    [*command, *arguments, f"--user-data-dir={self.folder}", "about:blank"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    env=self._environment(),
                    start_new_session=True,
                )
        except OSError as error:
            self._guard.release()
            raise AdapterError(f"{command[0]} cannot be started: {error}") from None
        self._guard.watch(-self.process.pid)

    def _environment(self) -> dict[str, str]:
        # A Chromium that is killed leaves the folder of its socket behind: so it is made inside the profile.
        return {**os.environ, "TMPDIR": self.folder} if len(self.folder) < _LONGEST_TEMPORARY else dict(os.environ)

    @property
    def is_alive(self) -> bool:
        """Whether the browser has not ended."""
        return self.process.poll() is None

    async def websocket(self) -> str:
        """Return the websocket of the browser once it listens.

        Raises:
            AdapterError: it ended before, or did not listen in time.
        """
        import asyncio  # late: the browser starts before it is imported

        deadline = time.monotonic() + START_LIMIT
        while True:
            port, _, path = self._read("DevToolsActivePort").partition("\n")
            if path:
                self.for_clients = f"http://127.0.0.1:{port}"
                return f"ws://127.0.0.1:{port}{path.strip()}"
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                what = (
                    f"did not listen within {START_LIMIT:g} s"
                    if code is None
                    else f"ended with code {code} at its start"
                )
                lines = self._read(_LOG).strip().splitlines() or ["it wrote no reason"]
                raise AdapterError(f"Chromium {what}: {lines[-1][-300:]}")
            await asyncio.sleep(_POLL_INTERVAL)

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    async def connect(self) -> tuple[str, Transport]:
        """Open the websocket of the browser, and return its URL too."""
        from session_reuse._browser.drivers.connection import open_websocket  # late, as above

        websocket = await self.websocket()
        return websocket, await open_websocket(websocket)

    def accept(self, product: str) -> None:
        """Accept each browser that has started."""

    def stop(self) -> None:
        """Kill the browser and remove its profile. Nothing in it is of use any more, so it need not close in order."""
        self._guard.release()
        if self.is_alive:  # the guard was killed itself
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def has_display() -> bool:
    """Return whether a window can be shown."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
