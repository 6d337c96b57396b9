"""How far it is from an agent's `with` to the socket: a reader follows these frames."""

from __future__ import annotations

import sys
from asyncio import selector_events
from pathlib import Path
from typing import Any

import pytest

import session_reuse
from session_reuse import SessionManager, reusable_session

PACKAGE = str(Path(session_reuse.__file__).parent)
MOST_FRAMES = {"GETEX": 9, "SET": 10}
MOST_FILES = 5


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, str]]]:
    """Our frames on the stack of each write to a socket, by the first command in it."""
    found: dict[str, list[tuple[str, str]]] = {}
    transport: Any = selector_events._SelectorSocketTransport
    write = transport.write

    def noting(self: Any, data: bytes) -> None:
        frame, ours = sys._getframe(1), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                ours.append((frame.f_code.co_filename, frame.f_code.co_name))
            frame = frame.f_back  # type: ignore[assignment]
        found[bytes(data).split(b"\r\n")[2].decode()] = ours
        write(self, data)

    monkeypatch.setattr(transport, "write", noting)
    return found


@pytest.mark.redis
async def test_the_way_to_the_socket_is_short(
    manager: SessionManager, written: dict[str, list[tuple[str, str]]]
) -> None:
    """Enter and exit pass few functions in few files, so that one reader can follow them."""
    for number in range(2):
        written.clear()
        async with reusable_session("a", "agent", manager=manager) as session:
            session.data["n"] = number
    for command, most in MOST_FRAMES.items():
        frames = written[command]
        assert len(frames) <= most, frames
        assert len({file for file, _ in frames}) <= MOST_FILES, frames
