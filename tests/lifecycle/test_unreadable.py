"""What this process cannot read without a key, an extra or memory is not damaged: it is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from fakeredis import FakeRedis

from session_reuse import BrowserSession, Outcome, SaveOutcome
from session_reuse._state import compression
from session_reuse.errors import MissingExtraError
from session_reuse.testing import MemoryStore, assert_fresh, assert_reused, state_with_cookie
from tests.harness.polling import until
from tests.lifecycle.worlds import NAME, Process

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NOTE = "a note that compresses well " * 200


class Case(NamedTuple):
    """A value that one process can write and another cannot read."""

    writer: dict[str, Any]
    reader: dict[str, Any]
    plant: Callable[[bytes], bytes] = bytes
    missing: str = ""


CASES = {
    "another key": Case({"encryption_keys": [KEY]}, {"encryption_keys": [OTHER_KEY]}),
    "no key": Case({"encryption_keys": [KEY]}, {}),
    "plain, where keys are set": Case({}, {"encryption_keys": [KEY]}),
    "no zstd": Case({"compression": "zstd"}, {"compression": "none"}, missing="zstd"),
    "no lz4": Case({"compression": "lz4"}, {"compression": "none"}, missing="lz4"),
    "too large": Case({"compression": "none"}, {"max_state_bytes": 2_000, "compression": "none"}),
    "too large, zstd": Case({"compression": "zstd"}, {"max_state_bytes": 2_000}),
    "too large, lz4": Case({"compression": "lz4"}, {"max_state_bytes": 2_000}),
    "too large, zlib": Case({"compression": "zlib"}, {"max_state_bytes": 2_000}),
    "a newer schema": Case({}, {}, lambda value: b"SRS2" + value[4:]),
    "a newer flag": Case({}, {}, lambda value: value[:7] + b"u" + value[8:]),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each of them in turn."""
    found: Case = request.param
    return found


@pytest.fixture
async def reader(case: Case, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process that cannot read what stands in the store."""
    memory = MemoryStore()
    writer = Process(memory, **case.writer)
    await writer.log_in("good", note=NOTE)
    await writer.manager.aclose()
    memory.put(NAME, case.plant(memory.peek(NAME) or b""))
    if case.missing:
        monkeypatch.setattr(compression, "compressor", without(case.missing))
    reader = Process(memory, **case.reader)
    yield reader
    await reader.manager.aclose()


def without(missing: str) -> Callable[[str], compression.Compressor]:
    """Return a `compressor` as it looks where an extra is not installed."""
    real = compression.compressor

    def compressor(name: str) -> compression.Compressor:
        if name == missing:
            raise MissingExtraError("compression", f"{name} compression")
        return real(name)

    return compressor


def untouched(process: Process, before: bytes | None) -> bool:
    """Return whether the value stands where it stood, byte for byte, and none was set aside."""
    client = FakeRedis(server=process.memory.server)
    return process.memory.peek(NAME) == before and not client.exists(f"browser:quarantine:{{browser:session:{NAME}}}")


async def test_an_agent_starts_fresh_and_its_save_is_skipped(reader: Process) -> None:
    """Neither work nor a new login nor vouching for it replaces what others can read."""
    before = reader.memory.peek(NAME)
    async with reader.enter() as session:
        assert_fresh(session, Outcome.CORRUPT)
        session.storage_state = state_with_cookie(value="mine")
        session.data["n"] = 1
        session.mark_good()
        assert await session.checkpoint() is SaveOutcome.SKIPPED
    assert session.save_outcome is SaveOutcome.SKIPPED
    assert untouched(reader, before)


async def test_a_session_made_by_hand_does_not_replace_it(reader: Process) -> None:
    """`manager.save` looks first, and finds that it cannot look."""
    before = reader.memory.peek(NAME)
    session = BrowserSession(NAME, storage_state=state_with_cookie(value="mine"))
    assert await reader.manager.save(session) is SaveOutcome.SKIPPED
    assert untouched(reader, before)


async def test_a_save_that_waited_does_not_replace_it(reader: Process) -> None:
    """The agent entered while the store was away. Its work is refused with a reason, not dropped without a word."""
    before = reader.memory.peek(NAME)
    reader.cut()
    async with reader.enter() as session:
        session.data["n"] = 1
    assert session.save_outcome is SaveOutcome.PENDING
    reader.heal()
    assert await session.settled() is SaveOutcome.SKIPPED
    assert [fingerprint for fingerprint, _ in reader.lost] == [NAME]
    assert untouched(reader, before)


async def test_an_exclusive_agent_does_not_replace_it(reader: Process) -> None:
    """A lease is no licence, and it is given back. Its fencing token in the header is all that it leaves."""
    before = reader.memory.peek(NAME) or b""
    for _ in range(2):
        async with reader.enter(exclusive=True) as session:
            assert_fresh(session, Outcome.CORRUPT)
            session.storage_state = state_with_cookie(value="mine")
        assert session.save_outcome is SaveOutcome.SKIPPED
    after = reader.memory.peek(NAME) or b""
    assert untouched(reader, after)
    assert after[:36] + after[56:] == before[:36] + before[56:]


async def test_those_who_can_read_it_still_do() -> None:
    """A fleet in which one process lacks the key keeps its login."""
    memory = MemoryStore()
    right, wrong = Process(memory, encryption_keys=[KEY]), Process(memory)
    await right.log_in("good")
    async with wrong.enter() as session:
        session.storage_state = state_with_cookie(value="mine")
    async with right.enter() as session:
        assert_reused(session)
        assert session.storage_state == state_with_cookie(value="good")
    await right.manager.aclose()
    await wrong.manager.aclose()


async def test_reading_it_in_vain_does_not_shorten_its_life() -> None:
    """The enter of a process that cannot read a session, and lets sessions live shorter, is corrected."""
    memory = MemoryStore()
    right, wrong = Process(memory, encryption_keys=[KEY]), Process(memory, ttl=60.0)
    await right.log_in("good")
    async with wrong.enter() as session:
        session.discard()
    client = FakeRedis(server=memory.server)
    await until(lambda: client.ttl(f"browser:session:{NAME}") > 80_000, message="the enter was corrected")
    await right.manager.aclose()
    await wrong.manager.aclose()
