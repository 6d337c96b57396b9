"""The application's threads may all be busy: an enter and a save of a large session do not wait for them."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from session_reuse import SaveOutcome, SessionManager, reusable_session
from session_reuse._session.writer import _OFFLOAD
from session_reuse.testing import MemoryStore, assert_reused, memory_manager
from tests.lifecycle.worlds import NAME, Process


@pytest.fixture
def busy() -> threading.Event:
    """What the application's threads wait for."""
    return threading.Event()


async def test_a_large_session_does_not_wait_for_the_applications_threads(busy: threading.Event) -> None:
    """Its coding runs in threads of our own."""
    memory = MemoryStore()
    writer, reader = memory_manager(memory), memory_manager(memory)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    waiting = loop.run_in_executor(None, busy.wait, 30)
    try:
        async with asyncio.timeout(20):
            large = random.Random(1).randbytes(2 * _OFFLOAD).hex()
            assert await changed(writer, large) is SaveOutcome.SAVED
            session = await reader.restore(NAME)
            assert session is not None
            assert_reused(session)
            assert session.data == {"large": large}
            assert await changed(reader, large[::-1]) is SaveOutcome.SAVED
    finally:
        busy.set()
        await waiting
        await writer.aclose()
        await reader.aclose()


async def test_the_spool_does_not_wait_for_the_applications_threads(busy: threading.Event, tmp_path: Path) -> None:
    """While the store is away, what waits is on disk before the agent has left."""
    one = Process(MemoryStore(), spool_dir=tmp_path / "spool", encryption_keys=b"k" * 32)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    waiting = loop.run_in_executor(None, busy.wait, 30)
    one.cut()
    try:
        async with asyncio.timeout(20), one.manager:
            assert await changed(one.manager, "note") is SaveOutcome.SPOOLED
    finally:
        busy.set()
        await waiting


async def changed(manager: SessionManager, large: str) -> SaveOutcome:
    """Save a large note, and return what that did."""
    async with reusable_session(NAME, manager=manager) as session:
        session.data["large"] = large
    assert session.save_outcome is not None
    return session.save_outcome
