"""The folder for saves that wait, full or shared. No save leaves it that an agent was told is kept, and none comes out twice."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from session_reuse import SaveOutcome
from session_reuse._session.spool.disk_replicas import DiskReplicas
from session_reuse._session.spool.files import Spool
from session_reuse._state.sealing import AesGcm
from session_reuse.testing import MemoryStore, state_with_cookie
from tests.harness.polling import until, wait_until
from tests.harness.probes import files_are_written, reading_of_folder, waiting_of
from tests.lifecycle.worlds import NAME, Process, login_of

KEY, NEWER_KEY = b"k" * 32, b"n" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of all processes of a test."""
    return tmp_path / "spool"


def process(memory: MemoryStore, folder: Path, *, keys: tuple[bytes, ...] = (KEY,), **config: Any) -> Process:
    """Return a process that keeps its waiting saves in the folder."""
    return Process(memory, spool_dir=folder, encryption_keys=keys, **config)


async def leave(by: Process, name: str, **data: Any) -> SaveOutcome | None:
    """Save notes in a session."""
    async with by.enter(name) as session:
        session.data.update(data)
    return session.save_outcome


def files(folder: Path) -> list[str]:
    """Return the names of the files with saves that wait."""
    return sorted(path.name for path in folder.glob("*.v2"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files with saves that wait."""
    return {name: (folder / name).read_bytes() for name in files(folder)}


async def deliver(memory: MemoryStore, folder: Path, **config: Any) -> None:
    """Have a new process deliver what is in the folder."""
    by = process(memory, folder, **config)
    async with by.manager:
        await until(lambda: not files(folder), message="the folder was delivered")


async def notes_in(memory: MemoryStore, folder: Path) -> dict[str, Any]:
    """Return the notes of the stored session."""
    reader = process(memory, folder)
    async with reader.manager, reader.enter(save="never") as session:
        return session.data


@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "ended"])
async def test_the_save_of_another_process_stays_when_memory_is_full(folder: Path, is_alive: bool) -> None:
    """A process has read it from the folder, and has no room for it. It is not lost, and is not reported so."""
    memory = MemoryStore()
    one, other = process(memory, folder, pending_max=1), process(memory, folder, pending_max=1)
    one.cut()
    other.cut()
    async with one.manager:
        assert await leave(one, "shop.example/1", n=1) is SaveOutcome.SPOOLED
        if not is_alive:
            await one.manager.aclose()
        async with other.manager:
            async with other.enter("shop.example/1", save="never") as session:
                assert session.data == {"n": 1}
            assert await leave(other, "shop.example/2", n=2) is SaveOutcome.PENDING
            assert other.lost == []
    assert one.lost == []
    await deliver(memory, folder)
    assert memory.peek("shop.example/1") is not None


async def test_saves_of_others_give_way_to_those_of_the_process(folder: Path) -> None:
    """A process has read what others left, and then runs out of room. Theirs stay on disk, its own would be lost."""
    memory = MemoryStore()
    one, other = process(memory, folder, pending_max=2), process(memory, folder, pending_max=2)
    one.cut()
    other.cut()
    async with one.manager:
        assert await leave(one, "shop.example/1", n=1) is SaveOutcome.SPOOLED
        await reading_of_folder(one.manager)  # from now on, it is the one that delivers
        async with other.manager:
            assert await leave(other, "shop.example/2", n=2) is SaveOutcome.SPOOLED
            await reading_of_folder(one.manager)
            assert len(waiting_of(one.manager)) == 2
            assert await leave(one, "shop.example/3", n=3) is SaveOutcome.PENDING  # the folder is full
            assert one.lost == other.lost == []
            one.heal()
            other.heal()
    for number in (1, 2, 3):
        assert memory.peek(f"shop.example/{number}") is not None


async def test_a_session_keeps_its_place_under_a_newer_key(folder: Path) -> None:
    """Its file has another name under each key."""
    memory = MemoryStore()
    one = process(memory, folder, pending_max=2)
    one.cut()
    async with one.manager:
        for number in range(2):
            assert await leave(one, f"shop.example/{number}", n=number) is SaveOutcome.SPOOLED
    other = process(memory, folder, pending_max=2, keys=(NEWER_KEY, KEY))
    other.cut()
    async with other.manager:
        assert await leave(other, "shop.example/1", more=1) is SaveOutcome.SPOOLED


@pytest.mark.parametrize("bound", ["entries", "bytes"])
def test_a_save_that_is_refused_costs_no_base(folder: Path, bound: str) -> None:
    """What the folder cannot hold even without them is refused before they go."""
    bounds = {"entries": {"max_entries": 1}, "bytes": {"max_bytes": 600}}[bound]
    spool = Spool(
        folder, AesGcm((KEY,)), **{"max_entries": 8, "max_bytes": 2**20, "max_content": 2**20, "ttl": 60, **bounds}
    )
    content, base = secrets.token_bytes(300), secrets.token_bytes(100)
    save, other, known = (spool.names_of(name)[0] for name in "abc")
    spool.write(save, content, time.time())
    spool.write(spool.base_name(known), base, time.time())
    with pytest.raises(OSError, match="pending_max"):
        spool.write(other, content, time.time())
    assert (folder / spool.base_name(known)).exists()


async def test_what_waits_lives_as_long_as_the_agent_goes_on() -> None:
    """An agent's first save is older than its time to live when the last one is made. Both are in what is stored."""
    memory = MemoryStore()
    one = Process(memory, ttl=3.0, close_timeout=2.0)
    async with one.manager:
        one.cut()
        async with one.enter("shop.example/1") as session:
            session.data["first"] = 1
            await session.checkpoint()
            await asyncio.sleep(3.1)
            session.data["last"] = 1
        one.heal()  # the close writes at once: by now, the breaker may be open for longer than the time to live
    assert await session.settled() is SaveOutcome.SAVED
    assert one.lost == []


async def test_a_new_login_that_another_process_has_delivered_goes_on(folder: Path) -> None:
    """That process chose its time of creation. The agent's next save belongs to the login that is stored."""
    memory = MemoryStore()
    one, other = process(memory, folder), process(memory, folder)
    async with one.manager, other.manager:
        async with one.enter() as session:
            session.storage_state = state_with_cookie(value="new")
            one.cut()
            other.cut()
            assert await session.checkpoint() is SaveOutcome.SPOOLED
            async with other.enter(save="never") as theirs:
                assert login_of(theirs) == "new"
            await asyncio.sleep(0.01)  # else both may choose one time
            other.heal()
            await until(lambda: memory.peek(NAME) is not None, message="the other process has delivered it")
            one.heal()
            assert await session.settled() is SaveOutcome.SAVED
            session.storage_state = state_with_cookie(value="refreshed")
        assert session.save_outcome is SaveOutcome.SAVED


async def test_a_write_that_fails_ends_no_promise_of_another_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process had no room for what it has read, and its disk fails at that moment."""
    memory, name = MemoryStore(), "shop.example/1"
    one, other = process(memory, folder), process(memory, folder, pending_max=1)
    one.cut()
    other.cut()
    async with one.manager:
        assert await leave(one, name, first=1) is SaveOutcome.SPOOLED
    async with other.manager:
        async with other.enter(name, save="never") as session:
            assert session.data == {"first": 1}
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "exclusive", no_lock)
            assert await leave(other, "shop.example/2", n=2) is SaveOutcome.PENDING
            await files_are_written(other.manager, name)
        other.heal()
        await until(lambda: not other.manager.stats().pending, message="the other save was delivered")
        other.cut()
        await leave(other, name, second=1)
        await files_are_written(other.manager, name)
    await deliver(memory, folder)
    reader = process(memory, folder)
    async with reader.manager, reader.enter(name) as session:
        assert session.data == {"first": 1, "second": 1}


def no_lock(_: Spool) -> NoReturn:
    """Fail as a disk does."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_what_is_delivered_while_the_folder_is_read_is_not_delivered_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Redis is back, a manager delivers what waits and reads the folder, at once. The folder may be slow."""
    memory = MemoryStore()
    one, other = process(memory, folder), Process(memory, encryption_keys=(KEY,))
    read = DiskReplicas._read
    was_read, may_go_on = threading.Event(), threading.Event()

    def read_slowly(disk: DiskReplicas, name: str) -> dict[str, Any] | None:
        found = read(disk, name)
        if found is not None and "changes" in found:
            was_read.set()
            assert may_go_on.wait(20)
        return found

    async with one.manager, other.manager:
        one.cut()
        assert await leave(one, NAME, n=1) is SaveOutcome.SPOOLED
        monkeypatch.setattr(DiskReplicas, "_read", read_slowly)
        monkeypatch.setattr(
            DiskReplicas, "_packed_changes", lambda disk, name: (read(disk, name) or {"changes": []})["changes"]
        )
        reading = reading_of_folder(one.manager)
        await until(was_read.is_set, message="the folder is being read")
        one.heal()
        await until(lambda: not files(folder), message="what waited was delivered")
        async with other.enter() as session:
            assert session.data.pop("n") == 1
        for number in range(4):
            await leave(other, NAME, m=number)
        may_go_on.set()
        await reading
        await until(lambda: not waiting_of(one.manager), message="nothing waits")
        async with other.enter(save="never") as session:
            assert session.data == {"m": 3}


async def test_many_saves_of_one_session_are_read_again(folder: Path) -> None:
    """Each brings its document twice. Together they are larger than four sessions may be."""
    memory = MemoryStore()
    settings = {"max_state_bytes": 4000}
    one = process(memory, folder, **settings)
    async with one.manager:
        await one.log_in(large="x" * 3000)
        async with AsyncExitStack() as agents:
            sessions = [await agents.enter_async_context(one.enter(agent=f"agent-{number}")) for number in range(10)]
            one.cut()
            for number, session in enumerate(sessions):
                session.data[f"note-{number}"] = number
        assert {session.save_outcome for session in sessions} == {SaveOutcome.SPOOLED}
    await deliver(memory, folder, **settings)
    assert not (folder / "rejected").exists()
    notes = await notes_in(memory, folder)
    assert notes.pop("large")
    assert notes == {f"note-{number}": number for number in range(10)}


async def test_saves_that_are_too_large_for_another_process_stay(folder: Path) -> None:
    """Its own save of that session cannot be kept beside them, and it does not say so."""
    memory = MemoryStore()
    one, other = process(memory, folder), process(memory, folder, max_state_bytes=1000, pending_max_bytes=2000)
    one.cut()
    other.cut()
    async with one.manager:
        assert await leave(one, NAME, large=secrets.token_hex(8000)) is SaveOutcome.SPOOLED
    before = contents(folder)
    async with other.manager:
        assert await leave(other, NAME, small=1) is SaveOutcome.PENDING
    assert [name for name, _ in other.lost] == [NAME]
    assert contents(folder) == before
    await deliver(memory, folder)
    assert set(await notes_in(memory, folder)) == {"large"}


async def test_what_a_process_leaves_at_its_end_is_delivered_by_those_that_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have met no outage, and nothing of theirs waits."""
    monkeypatch.setattr("session_reuse._session.spool.disk_replicas._RESCAN", 0.1)
    memory = MemoryStore()
    idle, one = process(memory, folder), process(memory, folder)
    async with idle.manager:
        await idle.log_in(name="shop.example/other")
        await reading_of_folder(idle.manager)
        async with one.manager:
            one.cut()
            assert await leave(one, NAME, n=1) is SaveOutcome.SPOOLED
        await until(lambda: not files(folder), message="the save was delivered")
    assert await notes_in(memory, folder) == {"n": 1}


FORKS = """
import os, sys, time
from pathlib import Path
from session_reuse._session.spool.files import Spool
from session_reuse._state.sealing import AesGcm

spool = Spool(Path(sys.argv[1]), AesGcm((b"k" * 32,)), max_entries=8, max_bytes=2**20, max_content=2**20, ttl=60.0)
with spool.exclusive():
    assert spool.claim()
    child = os.fork()
    if not child:
        os.close(1)
        time.sleep(100)
    print(child, flush=True)
    os._exit(0)
"""


def test_a_child_keeps_no_lock_of_its_parent(folder: Path) -> None:
    """The parent ends while it writes and delivers, and its child lives on."""
    ended = subprocess.run([sys.executable, "-c", FORKS, folder], stdout=subprocess.PIPE, text=True, check=True)
    spool = Spool(folder, AesGcm((KEY,)), max_entries=8, max_bytes=2**20, max_content=2**20, ttl=60.0)
    try:
        wait_until(spool.claim, message="another process may deliver")
        with spool.exclusive():
            pass
    finally:
        spool.end_claim()
        os.kill(int(ended.stdout), signal.SIGKILL)
