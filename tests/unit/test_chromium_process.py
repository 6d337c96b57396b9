"""A Chromium of our own and its guard."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from session_reuse.browsers._chromium_process import ChromiumProcess
from tests.agents.runs import processes_with
from tests.harness.polling import wait_until

LIMIT = 30.0


def test_a_browser_is_ended_though_its_guard_was_killed(tmp_path: Path) -> None:
    """A guard that was killed ends nothing. The browser and its profile still go, and the exit does not hang."""
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o700)
    chromium = ChromiumProcess(program)
    try:

        def guards() -> list[int]:
            return [each for each in processes_with(chromium.folder) if each != chromium.process.pid]

        wait_until(lambda: len(guards()) == 1, message="the guard alone holds the folder")  # a process begins as a copy
        os.kill(guards()[0], signal.SIGKILL)
        stopping = threading.Thread(target=chromium.stop, daemon=True)
        stopping.start()
        stopping.join(LIMIT)
        assert not stopping.is_alive()
        assert not Path(chromium.folder).exists()
    finally:
        chromium.process.kill()
