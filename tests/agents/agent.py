"""An agent without any framework: `python -m tests.agents.agent ACTION [URL]` in the browser that the environment names."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from tests.agents.tab import new_tab


async def main(action: str, *arguments: str) -> None:
    """Do one thing in a new tab, and print what was seen."""
    async with new_tab(os.environ["SESSION_REUSE_CDP_WS"]) as tab:
        if action in {"login", "stay", "close", "kill"}:
            await tab.log_in(arguments[0])
        elif action == "set":
            await tab.goto(arguments[0])
            await tab.evaluate(f"localStorage.setItem({arguments[1]!r}, 'yes')")
        elif action == "fetch":
            await tab.goto(arguments[0])
            fetch = f"fetch({arguments[1]!r}, {{mode: 'no-cors'}}).then(() => 'reached', () => 'refused')"
            print(await tab.evaluate(fetch), flush=True)  # noqa: T201
        print(await (tab.goto(arguments[0]) if action in {"look", "beat"} else tab.words()), flush=True)  # noqa: T201
        if action in {"close", "kill"}:
            await asyncio.sleep(1.5)  # longer than the time between two looks at the cookies
        if action == "close":
            await tab.send("Browser.close")
        if action == "kill":
            found = (await tab.send("SystemInfo.getProcessInfo"))["processInfo"]
            os.kill(next(each["id"] for each in found if each["type"] == "browser"), signal.SIGKILL)
            await asyncio.sleep(0.5)
            print("went on", flush=True)  # noqa: T201
        if action in {"stay", "beat"}:
            await asyncio.sleep(600)


if __name__ == "__main__":
    # It ends at once, as most programs do. One of many runs on a busy machine did not end after two SIGINT, and asyncio's
    # own handling of the second one hid the cause (2026-11-26).
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(main(*sys.argv[1:]))
