"""Replicas on disk: what waits for the store outlives the process, the next one starts from it, and no file shows what it is."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from session_reuse import BrowserSession, SaveOutcome, SessionManager, reusable_session
from session_reuse._session.spool.files import Spool
from session_reuse._state.sealing import AesGcm
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError
from tests.harness.polling import until
from tests.harness.probes import files_are_written
from tests.harness.servers import RedisServer
from tests.harness.stored import header_in

KEY = b"k" * 32
CANARY = "canary-7f3a91"
NAME = "shop.example/alice"

_AGENT = """
import asyncio, os, signal, sys
from session_reuse import SessionManager, reusable_session

async def main(url, folder, name, item):
    manager = SessionManager(url, registry=None, encryption_keys=[b"k" * 32], spool_dir=folder)
    async with reusable_session(name, "agent", manager=manager) as session:
        session.data[item] = "canary-7f3a91"
    print(session.save_outcome, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the spool is to be."""
    return tmp_path / "spool"


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of this test alone, that is down to begin with."""
    with RedisServer(appendonly=True) as server:
        server.kill()
        yield server


@pytest.fixture
async def away(own_redis: RedisServer, folder: Path) -> AsyncIterator[SessionManager]:
    """A manager with a spool, whose store is away."""
    manager = manager_of(own_redis, folder)
    async with manager:
        yield manager


def manager_of(server: RedisServer, folder: Path, **config: Any) -> SessionManager:
    """Return a manager with a spool."""
    settings = {"registry": None, "encryption_keys": [KEY], "spool_dir": folder, "close_timeout": 0.2}
    return SessionManager(server.url, **settings | config)


async def leave(manager: SessionManager, name: str = NAME, **data: Any) -> SaveOutcome | None:
    """Visit a session and leave something in it."""
    async with reusable_session(name, "agent", manager=manager) as session:
        session.data.update(data)
    return session.save_outcome


def files(folder: Path) -> list[Path]:
    """Return the files of changes that wait."""
    return sorted(folder.glob("*.v2"))


def copy_of(folder: Path) -> Path:
    """Return a copy of the changes that wait: a write that is still on its way after a close does not reach it."""
    copy = folder.with_name("copy")
    copy.mkdir(mode=0o700)
    for path in files(folder):
        shutil.copy2(path, copy)
    return copy


async def stored(server: RedisServer, name: str = NAME) -> dict[str, Any] | None:
    """Return what another process finds in the store."""
    async with SessionManager(server.url, registry=None, encryption_keys=[KEY]) as manager:
        found = await manager.restore(name)
        return None if found is None else found.data


def killed_agent(server: RedisServer, folder: Path, item: str, name: str = NAME) -> str:
    """Run an agent that ends by kill -9 after its save. Return the outcome of the save."""
    command = [sys.executable, "-c", _AGENT, server.url, str(folder), name, item]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


async def test_a_killed_process_loses_no_work(own_redis: RedisServer, folder: Path) -> None:
    """A save made while the store was away survives kill -9 of its process: the next one delivers it."""
    assert await asyncio.to_thread(killed_agent, own_redis, folder, "work") == "spooled"
    own_redis.start()
    async with manager_of(own_redis, folder):
        await until(lambda: not files(folder), message="the spool was delivered")
    assert await stored(own_redis) == {"work": CANARY}


async def test_the_next_process_starts_from_changes_on_disk(own_redis: RedisServer, folder: Path) -> None:
    """While the store is still away, a visit of the next process starts from what the spool holds."""
    await asyncio.to_thread(killed_agent, own_redis, folder, "work")
    async with manager_of(own_redis, folder) as manager:
        await until(lambda: manager.stats().pending, message="the spool was read")
        async with reusable_session(NAME, manager=manager) as session:
            assert session.reused
            assert session.data == {"work": CANARY}


async def test_the_next_process_starts_from_what_the_last_one_knew(own_redis: RedisServer, folder: Path) -> None:
    """While the store is away, a new process reuses the last state that the store has confirmed to an earlier one."""
    own_redis.start()
    async with manager_of(own_redis, folder) as manager:
        assert await leave(manager, work=1) is SaveOutcome.SAVED
    own_redis.kill()
    async with manager_of(own_redis, folder, save_timeout=1.0) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            assert session.reused
            assert session.stale
            assert session.data == {"work": 1}
        async with reusable_session(NAME, manager=manager, exclusive=True) as session:
            assert not session.reused
            session.discard()


_TWO_AGENTS = """
import asyncio, os, signal, sys
from session_reuse import SessionManager, reusable_session

async def main(url, folder, name, server):
    manager = SessionManager(url, registry=None, encryption_keys=[b"k" * 32], spool_dir=folder)
    async with reusable_session(name, manager=manager) as session:
        session.data["login"] = "old"
    async with reusable_session(name, manager=manager) as long:
        long.data["long"] = 1
        async with reusable_session(name, manager=manager) as short:
            short.data["login"] = "new"
        os.kill(int(server), signal.SIGKILL)
    print(long.save_outcome, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_next_process_starts_from_both_files(own_redis: RedisServer, folder: Path) -> None:
    """What waits is from an agent that entered before the last save: it is older than what the process knew."""
    own_redis.start()
    command = [sys.executable, "-c", _TWO_AGENTS, own_redis.url, str(folder), NAME, str(own_redis.pid)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["spooled"], done.stderr
    own_redis.kill()
    async with manager_of(own_redis, folder) as manager:
        await asyncio.sleep(0.3)  # the outbox is adopted
        async with reusable_session(NAME, manager=manager, save="never") as session:
            assert (session.stale, session.data) == (True, {"login": "new", "long": 1})


async def test_two_processes_do_not_overwrite_each_other_on_disk(own_redis: RedisServer, folder: Path) -> None:
    """Two processes that spool one session one after the other both find their work in the store."""
    await asyncio.to_thread(killed_agent, own_redis, folder, "first")
    await asyncio.to_thread(killed_agent, own_redis, folder, "second")
    own_redis.start()
    async with manager_of(own_redis, folder):
        await until(lambda: not files(folder), message="the spool was delivered")
    assert await stored(own_redis) == {"first": CANARY, "second": CANARY}


async def test_each_save_on_disk_is_delivered_once(own_redis: RedisServer, folder: Path) -> None:
    """Managers that start together share the work: each save is delivered once, whoever does it."""
    names = [f"shop.example/{number}" for number in range(6)]
    async with manager_of(own_redis, folder) as manager:
        for name in names:
            assert await leave(manager, name, n=1) is SaveOutcome.SPOOLED
    own_redis.start()
    async with manager_of(own_redis, folder) as one, manager_of(own_redis, folder) as two:
        await until(lambda: not files(folder), message="the spool was delivered")
        assert one.stats().flushed + two.stats().flushed == len(names)
    assert [await stored(own_redis, name) for name in names] == [{"n": 1}] * len(names)


async def test_the_claim_of_a_living_process_holds(tmp_path: Path) -> None:
    """While one process delivers, another does not. When it ends, the next may."""
    one, two = (spool_at(tmp_path) for _ in range(2))
    assert one.claim()
    assert not two.claim()
    one.end_claim()
    assert two.claim()
    two.end_claim()


async def test_a_cancelled_close_lets_others_deliver(own_redis: RedisServer, folder: Path) -> None:
    """The process lives on, and its claim would stand in the way of the next manager."""
    manager = manager_of(own_redis, folder, close_timeout=60.0)
    assert await leave(manager, n=1) is SaveOutcome.SPOOLED
    closing = asyncio.create_task(manager.aclose())
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    own_redis.start()
    async with manager_of(own_redis, folder) as later:
        await leave(later, "another")
        await until(lambda: not files(folder), message="the spool was delivered")
    assert await stored(own_redis) == {"n": 1}


async def test_a_damaged_file_does_not_stop_the_others(
    away: SessionManager, own_redis: RedisServer, folder: Path
) -> None:
    """A damaged file is set aside, and the sound ones are delivered."""
    assert await leave(away, "shop.example/a", n=1) is SaveOutcome.SPOOLED
    (first,) = files(folder)
    assert await leave(away, "shop.example/b", n=2) is SaveOutcome.SPOOLED
    await away.aclose()
    copy = copy_of(folder)
    damaged = copy / first.name
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    own_redis.start()
    async with manager_of(own_redis, copy):
        await until(lambda: not files(copy), message="the spool was delivered")
    assert [path.name for path in (copy / "rejected").iterdir()] == [damaged.name]
    assert await stored(own_redis, "shop.example/b") == {"n": 2}
    assert await stored(own_redis, "shop.example/a") is None


async def test_a_file_under_another_name_is_not_delivered(
    away: SessionManager, own_redis: RedisServer, folder: Path
) -> None:
    """A spooled save copied over another one's name is damaged, not delivered."""
    await leave(away, "shop.example/a", n=1)
    await away.aclose()
    copy = copy_of(folder)
    (path,) = files(copy)
    path.rename(copy / f"{'0' * 32}.v2")
    own_redis.start()
    async with manager_of(own_redis, copy):
        await until(lambda: not files(copy), message="the spool was looked at")
    assert await stored(own_redis, "shop.example/a") is None


async def test_a_file_of_another_key_is_left_alone(
    away: SessionManager, own_redis: RedisServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A save sealed with a key that is not ours stays for those who have the key, and is said once."""
    await leave(away, n=1)
    await away.aclose()
    own_redis.start()
    async with manager_of(own_redis, folder, encryption_keys=[b"x" * 32]) as manager:
        await until(lambda: "session_reuse.spool_rejected" in caplog.text, message="it was said")
        assert len(files(folder)) == 1
        assert manager.stats().pending == 0
    async with manager_of(own_redis, folder, encryption_keys=[b"x" * 32, KEY]):
        await until(lambda: not files(folder), message="the spool was delivered")


async def test_an_old_save_from_disk_overwrites_no_newer_one(own_redis: RedisServer, folder: Path) -> None:
    """A save that another process has made meanwhile stays. The spooled one's other changes come in."""
    own_redis.start()
    async with manager_of(own_redis, folder) as manager:
        await leave(manager, shared=1)
        async with reusable_session(NAME, "agent", manager=manager) as session:
            session.data.update(shared=2, mine=2)
            own_redis.kill()
        assert session.save_outcome is SaveOutcome.SPOOLED
    own_redis.start()
    async with SessionManager(own_redis.url, registry=None, encryption_keys=[KEY]) as other:
        await leave(other, shared=3)
    async with manager_of(own_redis, folder):
        await until(lambda: not files(folder), message="the spool was delivered")
    assert await stored(own_redis) == {"shared": 3, "mine": 2}


async def test_an_invalidated_session_does_not_come_back_from_disk(own_redis: RedisServer, folder: Path) -> None:
    """A spooled save from before an invalidation is refused."""
    own_redis.start()
    async with manager_of(own_redis, folder) as manager:
        await leave(manager, n=1)
        async with reusable_session(NAME, "agent", manager=manager) as session:
            session.data["n"] = 2
            own_redis.kill()
    own_redis.start()
    async with SessionManager(own_redis.url, registry=None, encryption_keys=[KEY]) as other:
        await other.evict(NAME, "logged out")
    async with manager_of(own_redis, folder):
        await until(lambda: not files(folder), message="the spool was delivered")
    assert await stored(own_redis) is None


async def test_no_process_starts_from_a_session_that_was_invalidated(own_redis: RedisServer, folder: Path) -> None:
    """Its copy on disk goes with it: neither a clock that was set back nor a restart brings it back."""
    own_redis.start()
    async with manager_of(own_redis, folder) as manager:
        await leave(manager, work=1)
        await until(lambda: list(folder.glob("*.base2")), message="the disk has a copy")
        await manager.evict(NAME, "leaked")
        await until(lambda: not list(folder.glob("*.base2")), message="the copy is gone")
    own_redis.kill()
    async with manager_of(own_redis, folder) as manager, reusable_session(NAME, manager=manager) as session:
        assert not session.reused
        session.discard()


async def test_a_mark_that_two_managers_deliver_counts_once(own_redis: RedisServer, folder: Path) -> None:
    """The second one has read it from the disk while the store was away."""
    own_redis.start()
    async with manager_of(own_redis, folder) as manager, manager_of(own_redis, folder) as other:
        await leave(manager, work=1)
        for _ in range(2):
            async with reusable_session(NAME, manager=manager) as session:
                session.mark_bad()
        own_redis.kill()
        async with reusable_session(NAME, manager=manager) as session:
            session.data["work"] = 2
            session.mark_good()
        assert session.save_outcome is SaveOutcome.SPOOLED
        async with reusable_session(NAME, manager=other) as session:
            assert session.data == {"work": 2}
            session.discard()
        own_redis.start()
        await until(lambda: not (manager.stats().pending or other.stats().pending), message="both have delivered it")
    with own_redis.client() as client:
        assert header_in(client.get(f"browser:session:{NAME}")).score == 15


async def test_saves_that_two_managers_deliver_are_applied_once(own_redis: RedisServer, folder: Path) -> None:
    """The stored session names the last two of them. Those before were settled with them, and bring nothing deleted back."""
    own_redis.start()
    async with manager_of(own_redis, folder) as manager, manager_of(own_redis, folder) as other:
        await leave(manager, work=1)
        own_redis.kill()
        await leave(manager, draft=1)
        async with reusable_session(NAME, manager=manager) as session:
            del session.data["draft"]
        assert await leave(manager, done=1) is SaveOutcome.SPOOLED
        async with reusable_session(NAME, manager=other) as session:
            assert session.data == {"work": 1, "done": 1}
            session.discard()
        own_redis.start()
        await until(lambda: not (manager.stats().pending or other.stats().pending), message="both have delivered them")
    assert await stored(own_redis) == {"work": 1, "done": 1}
    assert not files(folder)


async def test_the_disk_does_not_show_who_is_logged_in_where(away: SessionManager, folder: Path) -> None:
    """Neither names nor contents of the files show a fingerprint, an agent or a value. Others may not look."""
    cookies = [{"name": CANARY, "value": CANARY, "domain": "shop.example", "path": "/"}]
    async with reusable_session(NAME, CANARY, manager=away) as session:
        session.storage_state = {"cookies": cookies, "origins": []}
        session.data["note"] = CANARY * 200
    assert session.save_outcome is SaveOutcome.SPOOLED
    assert files(folder)
    assert_private(folder)


def assert_private(folder: Path) -> None:
    """Nothing in the folder tells a secret, and no one else may read it."""
    shown = b"".join(str(path).encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for secret in (CANARY, NAME, "alice", "shop.example"):
        assert secret.encode() not in shown
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


async def test_the_folder_is_bounded(own_redis: RedisServer, folder: Path) -> None:
    """No more files than saves may wait. One that is given up in memory leaves the folder too."""
    lost: list[str] = []
    async with manager_of(own_redis, folder, pending_max=2, on_lost=lambda name, _: lost.append(name)) as manager:
        for number in range(4):
            assert await leave(manager, f"shop.example/{number}", n=number) is SaveOutcome.SPOOLED
        await until(lambda: len(files(folder)) == 2, message="the oldest gave way")
    own_redis.start()
    async with manager_of(own_redis, folder):
        await until(lambda: not files(folder), message="the spool was delivered")
    assert lost == ["shop.example/0", "shop.example/1"]
    kept = [await stored(own_redis, f"shop.example/{number}") for number in range(4)]
    assert kept == [None, None, {"n": 2}, {"n": 3}]


async def test_a_full_folder_keeps_what_other_managers_were_promised(
    own_redis: RedisServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A save for which it has no room waits in memory, and its agent hears so. The one that was kept is delivered."""
    one, other = (manager_of(own_redis, folder, pending_max=1) for _ in range(2))
    async with one, other:
        assert await leave(one, "shop.example/1", n=1) is SaveOutcome.SPOOLED
        assert await leave(other, "shop.example/2", n=2) is SaveOutcome.PENDING
        assert "pending_max or pending_max_bytes is reached" in caplog.text
        assert await leave(one, "shop.example/1", n=1, more=1) is SaveOutcome.SPOOLED
    own_redis.start()
    async with manager_of(own_redis, folder):
        await until(lambda: not files(folder), message="the spool was delivered")
    assert await stored(own_redis, "shop.example/1") == {"n": 1, "more": 1}


@pytest.mark.parametrize("bound", ["entries", "bytes"])
def test_bases_give_way_to_saves(tmp_path: Path, bound: str) -> None:
    """What was known of sessions leaves the folder before a save does, the oldest first, and never for nothing."""
    bounds = {"max_entries": 2} if bound == "entries" else {"max_bytes": 450}
    spool = spool_at(tmp_path, **bounds)
    save, *names = (spool.names_of(name)[0] for name in "abcd")
    content = secrets.token_bytes(100)
    spool.write(save, content, saved_at=time.time() - 9)
    for at, name in enumerate(names):
        spool.write(spool.base_name(name), content, saved_at=time.time() - 5 + at)
    left = {spool.base_name(name) for name in names[1:]} | {save}
    assert {path.name for path in tmp_path.iterdir()} == left
    spool.write(names[0], content, saved_at=time.time())
    assert set(spool.names()) == {save, names[0]}
    if bound == "bytes":
        spool.write(names[1], content, saved_at=time.time())
    with pytest.raises(OSError, match="pending_max"):
        spool.write(names[2], content, saved_at=time.time())
    spool.write(save, content[:50], saved_at=time.time())


@pytest.mark.parametrize("trouble", ["full", "unwritable"])
async def test_a_full_disk_does_not_reach_the_agent(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:  # fmt: skip
    """When the disk does not take the save, it waits in memory anyway, and the trouble is logged."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "spool" if trouble == "unwritable" else tmp_path / "spool"
    if trouble == "full":
        monkeypatch.setattr("os.fsync", no_space)
    async with manager_of(own_redis, folder) as manager:
        assert await leave(manager, n=1) is SaveOutcome.PENDING
        assert "session_reuse.spool_failed" in caplog.text
        own_redis.start()
        await until(lambda: not manager.stats().pending, message="the save was flushed")
    assert await stored(own_redis) == {"n": 1}


def fill(patch: pytest.MonkeyPatch) -> None:
    """Fill the disk: files can be removed, and none can be written."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(Spool, "write", refuse)


async def test_a_delivered_save_leaves_a_full_disk(
    own_redis: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base cannot be written any more. The next process would deliver the save again, over what others did since."""
    async with manager_of(own_redis, folder, close_timeout=2.0) as manager:
        assert await leave(manager, n=1) is SaveOutcome.SPOOLED
        fill(monkeypatch)
        own_redis.start()
        await until(lambda: not manager.stats().pending, message="the save was flushed")
    assert files(folder) == []


async def test_a_delivered_save_leaves_the_disk_after_a_failure(
    own_redis: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One write fails, because another process keeps the lock. The next one removes what was delivered meanwhile."""
    async with manager_of(own_redis, folder, close_timeout=2.0) as manager:
        assert await leave(manager, n=1) is SaveOutcome.SPOOLED
        with monkeypatch.context() as patch:
            patch.setattr("session_reuse._session.spool.files._LOCK_PATIENCE", 0.0)
            with Spool(folder, AesGcm([KEY]), max_entries=9, max_bytes=9999, max_content=9, ttl=9.0).exclusive():
                own_redis.start()
                await until(lambda: not manager.stats().pending, message="the save was flushed")
                await files_are_written(manager, NAME)
                assert "session_reuse.spool_failed" in caplog.text
                assert files(folder)
        assert await leave(manager, n=2) in {SaveOutcome.SAVED, SaveOutcome.MERGED}
    assert files(folder) == []


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
async def test_what_a_full_disk_has_refused_is_written_when_there_is_room(
    own_redis: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: bool
) -> None:  # fmt: skip
    """The process may end before the store is back: what waits is written with no further save, and at the end at the latest."""
    monkeypatch.setattr("session_reuse._session.spool.disk_replicas._RETRY", 60.0 if ends else 0.05)
    async with manager_of(own_redis, folder, close_timeout=3.0 if ends else 0.2) as manager:  # the disk gets a quarter
        with monkeypatch.context() as patch:
            fill(patch)
            for number in range(5):
                assert await leave(manager, f"shop.example/{number}", n=number) is SaveOutcome.PENDING
            await asyncio.sleep(0.2)
            assert files(folder) == []
        if not ends:
            await until(lambda: len(files(folder)) == 5, message="all saves were written")
    assert len(files(folder)) == 5
    levels = [record.levelname for record in caplog.records if "spool_failed" in record.getMessage()]
    assert levels.count("WARNING") == 1
    own_redis.start()
    async with manager_of(own_redis, folder) as manager:
        await until(lambda: not files(folder), message="the saves were delivered")
        for number in range(5):
            found = await manager.restore(f"shop.example/{number}")
            assert found is not None
            assert found.data == {"n": number}


@pytest.mark.parametrize("keys", [[KEY], [b"n" * 32, KEY]], ids=["same key", "next key"])
async def test_what_a_full_disk_holds_is_kept_and_not_reported_lost(
    own_redis: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch, keys: list[bytes]
) -> None:
    """A process on a full disk, perhaps with the next key, adopts a save. It stays on disk: only later changes are lost."""
    async with manager_of(own_redis, folder) as manager:
        assert await leave(manager, n=1) is SaveOutcome.SPOOLED
    fill(monkeypatch)
    lost: list[str] = []
    async with manager_of(
        own_redis, folder, encryption_keys=keys, on_lost=lambda *what: lost.append(str(what))
    ) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            session.discard()
        assert session.data == {"n": 1}
        assert await leave(manager, "shop.example/other", n=2) is SaveOutcome.PENDING
        assert await leave(manager, m=2) is SaveOutcome.PENDING
    assert len([line for line in lost if NAME in line]) == 1
    monkeypatch.undo()
    own_redis.start()
    async with manager_of(own_redis, folder, encryption_keys=keys) as manager:
        await until(lambda: not files(folder), message="the save was delivered")
        found = await manager.restore(NAME)
    assert found is not None
    assert found.data == {"n": 1}


async def test_a_disk_that_stays_full_is_one_warning(
    own_redis: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the folder and the reason. Each session and each retry would be its own warning."""
    fill(monkeypatch)
    async with manager_of(own_redis, folder) as manager:
        for number in range(5):
            assert await leave(manager, f"shop.example/{number}", n=1) is SaveOutcome.PENDING
    warnings = [record.getMessage() for record in caplog.records if "session_reuse.spool_failed" in record.getMessage()]
    assert len(warnings) == 1
    assert f"{folder}: No space left on device" in warnings[0]


async def test_a_hanging_disk_does_not_hold_an_agent_up(
    own_redis: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An enter keeps to its budget, also where the folder lies on a disk that does not answer."""
    answer = threading.Event()
    monkeypatch.setattr(Spool, "read", lambda *_: answer.wait(30) and None)
    async with manager_of(own_redis, folder, attempt_timeout=0.1, restore_timeout=0.3) as manager:
        began = time.monotonic()
        async with reusable_session(NAME, manager=manager) as session:
            took = time.monotonic() - began
            session.discard()
        answer.set()
    assert took < 20  # the disk would answer after 30 s


def no_space(_descriptor: int) -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_session_is_written_to_disk_in_plain(folder: Path) -> None:
    """A spool without a key is refused when it is asked for."""
    with pytest.raises(ConfigurationError, match="encryption_keys"):
        Config(spool_dir=folder)


async def test_keys_that_turn_out_empty_are_refused(own_redis: RedisServer, folder: Path) -> None:
    """A callable that has no key in the end is refused as well."""
    manager = manager_of(own_redis, folder, encryption_keys=list)
    with pytest.raises(ConfigurationError, match="encryption_keys"):
        await manager.save(BrowserSession(NAME))


def test_half_written_files_are_removed_and_not_read(tmp_path: Path) -> None:
    """What a killed process has begun to write is cleared away, and never read."""
    spool = spool_at(tmp_path)
    half = tmp_path / ".0.v2.abcd.tmp"
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    assert spool.names() == []
    assert not half.exists()


def test_old_bases_are_removed_and_old_saves_are_not(tmp_path: Path) -> None:
    """An old base helps no agent. A save is ended by the writer, which reports it."""
    spool = spool_at(tmp_path)
    name = spool.names_of(NAME)[0]
    for each in (name, spool.base_name(name)):
        spool.write(each, b"{}", saved_at=1000.0)
    assert spool.names() == [name]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", [".v2", ".base2", ".tmp", "..v2"])
def test_a_file_that_is_called_like_an_ending_is_not_ours(tmp_path: Path, name: str) -> None:
    """It is neither read nor removed, and ends no worker."""
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (1, 1))
    spool = spool_at(tmp_path)
    assert spool.names() == []
    assert (tmp_path / name).exists()


def test_both_folders_of_a_prefix_are_private(tmp_path: Path) -> None:
    """Also where `spool_dir` was made with other rights before."""
    for root in (tmp_path / "new", tmp_path / "old"):
        if root.name == "old":
            root.mkdir(mode=0o755)
        spool = spool_at(root, "prod")
        spool.write(spool.names_of(NAME)[0], b"{}", saved_at=time.time())
        assert {path.stat().st_mode & 0o777 for path in (root, spool.folder)} == {0o700}


def test_a_spool_dir_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the folder of the prefix in it is ours."""
    spool = spool_at(tmp_path, "prod")
    stat = os.stat

    def of_another(path: Any, **options: Any) -> Any:
        found = stat(path, **options)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if path == tmp_path else found

    monkeypatch.setattr("os.stat", of_another)
    with pytest.raises(PermissionError):
        spool.names()


async def test_saves_outside_of_the_folder_of_a_prefix_are_named(
    away: SessionManager, own_redis: RedisServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier version has kept the saves of each prefix in `spool_dir` itself."""
    assert await leave(away, n=1) is SaveOutcome.SPOOLED
    async with manager_of(own_redis, folder, key_prefix="prod"):
        await until(
            lambda: "saves of another key prefix or an earlier version wait in it: 1" in caplog.text,
            message="a warning",
        )
    assert len(files(folder)) == 1


@pytest.mark.parametrize("days", [0, 31])
async def test_a_save_that_waited_on_disk_for_too_long_is_reported(
    own_redis: RedisServer, folder: Path, days: int
) -> None:
    """Its process was killed, and the outage was longer than the time to live of the session."""
    lost: list[str] = []
    async with manager_of(own_redis, folder, ttl=0.5) as manager:
        assert await leave(manager, n=1) is SaveOutcome.SPOOLED
    left = time.monotonic()
    await until(lambda: time.monotonic() - left > 0.6, message="the session would have expired")
    for path in files(folder) if days else ():
        os.utime(path, (time.time() - days * 86400,) * 2)
    own_redis.start()
    async with manager_of(own_redis, folder, ttl=0.5, on_lost=lambda name, _: lost.append(name)) as manager:
        await until(lambda: lost, message="it was reported")
        await until(lambda: not files(folder), message="its file is gone")
    assert lost == [NAME]
    assert await stored(own_redis) is None


def age_by_an_hour(folder: Path) -> set[Path]:
    """Set back the times of all files of sessions, and return them."""
    paths = set(folder.glob("*2"))
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2)
    return paths


async def test_short_sessions_end_no_save_of_long_ones(
    away: SessionManager, own_redis: RedisServer, folder: Path
) -> None:
    """Managers with different times to live share a folder: neither the saves nor the bases of the other are removed."""
    assert await leave(away, n=1) is SaveOutcome.SPOOLED
    before = age_by_an_hour(folder)
    async with manager_of(own_redis, folder, ttl=60.0) as manager:
        assert await leave(manager, "shop.example/short", n=2) is SaveOutcome.SPOOLED
        assert before <= age_by_an_hour(folder)


async def test_a_save_goes_to_no_other_prefix(own_redis: RedisServer, folder: Path) -> None:
    """Managers with different prefixes share a folder: each delivers its own saves, and starts from its own."""
    async with manager_of(own_redis, folder, key_prefix="prod") as manager:
        assert await leave(manager, n=1) is SaveOutcome.SPOOLED
    for prefix in ("test", "browser"):
        async with (
            manager_of(own_redis, folder, key_prefix=prefix) as manager,
            reusable_session(NAME, manager=manager) as session,
        ):
            assert not session.reused
            session.discard()
    own_redis.start()
    async with manager_of(own_redis, folder, key_prefix="test") as manager:
        assert await leave(manager, "shop.example/bob", n=2) is SaveOutcome.SAVED
        async with manager_of(own_redis, folder, key_prefix="prod") as owner:
            await until(lambda: owner.stats().flushed, message="it was delivered to its own prefix")
    with own_redis.client() as client:
        assert set(client.keys("*:session:*")) >= {f"prod:session:{NAME}".encode(), b"test:session:shop.example/bob"}
        assert not client.exists(f"test:session:{NAME}", f"browser:session:{NAME}")


def spool_at(folder: Path, key_prefix: str = "browser", *, max_entries: int = 8, max_bytes: int = 2**20) -> Spool:
    """Return a spool."""
    return Spool(
        folder, AesGcm((KEY,)), max_entries=max_entries, max_bytes=max_bytes, max_content=2**20, ttl=60.0,
        key_prefix=key_prefix,
    )  # fmt: skip
