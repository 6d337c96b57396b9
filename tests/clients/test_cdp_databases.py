"""Copies of IndexedDB: each is of the origin it is filed under, or is not taken."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from session_reuse.browsers.cdp_databases import CdpDatabases
from session_reuse.browsers.live_mirror import LiveMirror

ONE, TWO = "http://one.test", "http://two.test"
PLAIN = [{"name": "app", "version": 1, "stores": []}]


def _page(origin: str, answers: list[Any]) -> Any:
    async def evaluate(_: str) -> Any:
        return answers.pop(0)

    return SimpleNamespace(origin=origin, session="s", evaluate=evaluate)


def _answer(origin: str, databases: list[dict[str, Any]]) -> list[str]:
    return [origin, json.dumps({"databases": databases, "lost": []})]


def _databases(origins: list[dict[str, Any]]) -> tuple[CdpDatabases, LiveMirror, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    mirror = LiveMirror({"cookies": [], "origins": origins})
    gone = asyncio.get_running_loop().create_future()
    gone.set_exception(OSError())
    gone.exception()
    connection: Any = SimpleNamespace(ended=asyncio.Event(), post=lambda *_: gone)
    return CdpDatabases(connection, mirror, origins, lambda *p: problems.append(p), {}), mirror, problems


async def test_copy_of_a_page_that_has_gone_on_is_not_taken() -> None:
    """A page that is of another origin by the time it is read does not empty the databases of the one it was."""
    stored = [{"origin": ONE, "localStorage": [], "indexedDB": PLAIN}]
    databases, mirror, problems = _databases(stored)
    databases.visited("s", ONE)
    await databases.read([_page(ONE, [_answer(TWO, [])])])
    assert mirror.state()["origins"] == stored
    assert problems == []


async def test_restored_databases_get_a_second_look() -> None:
    """A copy made while the page is still filling what was restored is not taken for the whole."""
    stored = [{"origin": ONE, "localStorage": [], "indexedDB": PLAIN}]
    databases, mirror, _ = _databases(stored)
    databases.visited("s", ONE)
    await databases.read([_page(ONE, [_answer(ONE, []), _answer(ONE, PLAIN)])])
    assert mirror.state()["origins"] == stored


async def test_databases_that_are_gone_are_dropped() -> None:
    """When both looks find nothing, the page has deleted its databases, and they do not come back."""
    databases, mirror, _ = _databases([{"origin": ONE, "localStorage": [], "indexedDB": PLAIN}])
    mirror.arrived(ONE)
    databases.visited("s", ONE)
    await databases.read([_page(ONE, [_answer(ONE, []), _answer(ONE, [])])])
    assert mirror.state()["origins"] == []
