"""The event loop in a thread that serves synchronous browser clients."""

from __future__ import annotations

import pytest

from session_reuse._browser.drivers.thread import LoopThread

LIMIT = 60.0


async def _ended_by(error: type[BaseException]) -> None:
    raise error


async def _answer() -> int:
    return 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_reaches_the_thread_that_waits(error: type[BaseException]) -> None:
    """An exit in a task ends `run_forever`. The caller gets it at once, and the loop goes on."""
    thread = LoopThread()
    try:
        with pytest.raises(error):
            thread.run(_ended_by(error), LIMIT)
        assert thread.run(_answer(), LIMIT) == 1
    finally:
        thread.stop()
