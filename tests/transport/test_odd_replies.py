"""Replies that no Redis sends: a proxy that is out of step, an imitation. The agent starts fresh, and its save waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session

LOOK = b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n"
Answer = Callable[[list[bytes]], bytes]


@asynccontextmanager
async def imitation(answer: Answer) -> AsyncIterator[str]:
    """Run a server that gives these answers, and yield its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            writer.write(answer(words))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "redis://{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


ODD_READS = {
    "a number": b":86400000\r\n",
    "a list": b"*1\r\n$1\r\nx\r\n",
    "a list with an error": b"*2\r\n$1\r\na\r\n-ERR x\r\n",
}


@pytest.mark.parametrize("name", ODD_READS)
async def test_an_odd_reply_to_a_read_is_no_session(name: str) -> None:
    """The enter does not raise, and the save finds no answer either."""
    async with imitation(lambda words: ODD_READS[name] if words[0] == b"GETEX" else LOOK) as url:
        await visit(url, Outcome.UNAVAILABLE)


@pytest.mark.parametrize("reply", [b":1\r\n", b"$-1\r\n"])
async def test_an_odd_reply_of_a_script_is_no_answer(reply: bytes) -> None:
    """Without a session the last invalidation is read, and this reply does not name one."""
    async with imitation(lambda words: b"$-1\r\n" if words[0] == b"GETEX" else reply) as url:
        await visit(url, Outcome.UNAVAILABLE)


async def test_an_odd_reply_to_a_save_leaves_it_waiting() -> None:
    """The exit does not raise."""

    def answer(words: list[bytes]) -> bytes:
        if words[0] == b"GETEX":
            return b"$-1\r\n"
        return LOOK if len(words) == 4 else b"*1\r\n$2\r\nOK\r\n"

    async with imitation(answer) as url:
        await visit(url, Outcome.MISSING)


async def visit(url: str, outcome: Outcome) -> None:
    """Enter with this outcome, and leave with a save that waits."""
    async with SessionManager(url, registry=None, close_timeout=0.1) as manager:
        async with reusable_session("shop.example/alice", manager=manager) as session:
            assert session.outcome is outcome
            session.data["n"] = 1
        assert session.save_outcome is SaveOutcome.PENDING
