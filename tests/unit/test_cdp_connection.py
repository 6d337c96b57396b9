"""A DevTools connection over a transport of the test's own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from session_reuse._browser.drivers.connection import CdpConnection


class Script:
    """A transport that receives what the test puts into it, any number of messages at once."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[str] = asyncio.Queue()
        self.received: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, message: str) -> None:
        """Keep a message."""
        self.sent.put_nowait(message)

    def __aiter__(self) -> Script:
        return self

    async def __anext__(self) -> str:
        return await self.received.get()

    async def close(self) -> None:
        """Nothing is open."""

    def receive(self, *messages: dict[str, Any]) -> None:
        """Let the connection read these without a turn of the loop between them."""
        for message in messages:
            self.received.put_nowait(json.dumps(message))


async def test_a_cancellation_that_comes_with_the_answer_is_kept() -> None:
    """A time limit around a caller must end it. `asyncio.wait_for` of Python 3.11 returns the answer and goes on."""
    transport = Script()
    connection = CdpConnection(transport, lambda *_: sending.cancel())
    sending = asyncio.create_task(connection.send("Browser.getVersion"))
    command = json.loads(await transport.sent.get())
    transport.receive({"id": command["id"], "result": {}}, {"method": "Target.targetCreated"})
    with pytest.raises(asyncio.CancelledError):
        await sending
    await connection.close()
