"""What a growing number of stored sessions costs: restore, save, memory, and the clean-up of those that expired.

    python benchmarks/growth.py [--sizes 1000,10000,100000,1000000] [--quick] [--json FILE]

Starts its own redis-server and fills it in the SDK's stored form, each session with its agent, affinity and entry in
the index of deadlines. Each size is measured in this order: a cycle of one agent over random sessions, in turns with the
same on a second server that stays at the smallest size. Then the clean-up when nothing is due, when 100 sessions have
expired, and when 1 % have. "Expired" means that the session has ended without an event and its entry is due.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Final

import redis

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.reporting import Goal, Results, command, number, table
from session_reuse import SessionManager, reusable_session
from session_reuse._state.codec import Codec
from session_reuse._state.document import dump
from session_reuse._state.header import Header
from session_reuse._store.keys import Keys
from tests.harness.servers import RedisServer

_TTL: Final = 86_400_000
_BATCH: Final = 1000
_FEW: Final = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """One size. Times in milliseconds, memory in bytes. `growth` is restore against restore at the smallest size."""

    sessions: int
    restore: float
    save: float
    growth: float
    memory: float
    idle: float
    few: float
    share_expired: int
    share: float

    @property
    def per_expired(self) -> float:
        """Microseconds for each session of the 1 %."""
        return 1000 * self.share / self.share_expired


def name(at: int) -> str:
    """Return the fingerprint of one session."""
    return f"shop-{at % 97}.example/user-{at}"


def stored(codec: Codec, keys: Keys, at: int) -> bytes:
    """Return a small session as it stands in Redis."""
    cookie = {"name": "sid", "value": f"{at:032x}", "domain": "shop.example", "path": "/", "expires": -1}
    document = {"fingerprint": name(at), "storage_state": {"cookies": [cookie], "origins": []}, "data": {"at": at}}
    body, dialect = dump(document)
    now = int(time() * 1000)
    header = Header(save_ids=(f"{at:012x}",), created_at=now, saved_at=now)
    return codec.encode(body, dialect, header, keys.session(name(at)))


def in_batches(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Cut numbers into batches."""
    source = iter(numbers)
    while batch := list(islice(source, _BATCH)):
        yield batch


def fill(client: redis.Redis, keys: Keys, numbers: Iterable[int]) -> None:
    """Store the sessions with these numbers."""
    codec = Codec()
    for batch in in_batches(numbers):
        pipeline = client.pipeline(transaction=False)
        deadline = int(time() * 1000) + _TTL
        entries: dict[str, dict[str, int]] = {}
        for at in batch:
            fingerprint = name(at)
            pipeline.set(keys.session(fingerprint), stored(codec, keys, at), px=_TTL)
            pipeline.set(keys.affinity(f"agent-{at}"), fingerprint, px=_TTL)
            pipeline.sadd(keys.of(fingerprint).agents, f"agent-{at}")
            pipeline.pexpire(keys.of(fingerprint).agents, _TTL)
            entries.setdefault(keys.of(fingerprint).deadlines, {})[fingerprint] = deadline
        for bucket, members in entries.items():
            pipeline.zadd(bucket, members)
        pipeline.execute()


def expire(client: redis.Redis, keys: Keys, numbers: list[int]) -> None:
    """Let sessions be gone, unheard, with their deadline over."""
    for batch in in_batches(numbers):
        pipeline = client.pipeline(transaction=False)
        for at in batch:
            pipeline.unlink(keys.session(name(at)))
            pipeline.zadd(keys.of(name(at)).deadlines, {name(at): 1}, xx=True)
        pipeline.execute()


async def cycle(manager: SessionManager, at: int) -> tuple[float, float]:
    """Enter, change, leave. Return the milliseconds of the enter and of the leave."""
    visit, began = reusable_session(name(at), f"agent-{at}", manager=manager), perf_counter()
    session = await visit.__aenter__()
    entered = perf_counter()
    if not session.reused:
        raise RuntimeError(f"{name(at)} was {session.outcome}")
    session.data["seen"] = at
    leaving = perf_counter()
    await visit.__aexit__(None, None, None)
    return 1000 * (entered - began), 1000 * (perf_counter() - leaving)


async def in_turns(
    manager: SessionManager, numbers: list[int], smallest: str, count: int
) -> tuple[float, float, float]:
    """Return the medians of enter and leave, and of an enter against one on the server of the smallest size."""
    restores, saves, small = [], [], []
    async with SessionManager(smallest, registry=None, attempt_timeout=5.0, restore_timeout=10.0) as other:
        for at in numbers:
            small.append((await cycle(other, at % count))[0])
            restore, save = await cycle(manager, at)
            restores.append(restore)
            saves.append(save)
    return median(restores), median(saves), median(restores) / median(small)


async def cleaned(manager: SessionManager, expected: int) -> float:
    """Clean up once, see that it found all, and return the milliseconds it took."""
    began = perf_counter()
    report = await manager.cleanup_once()
    took = 1000 * (perf_counter() - began)
    if report.expired != expected:
        raise RuntimeError(f"the clean-up found {report.expired} of {expected} expired sessions")
    return took


async def measured(
    servers: tuple[RedisServer, RedisServer], sizes: tuple[int, int], rounds: int, empty: int
) -> Measured:
    """Measure at one size. The first server holds that many sessions, the second the smallest number."""
    (server, smallest), (size, least) = servers, sizes
    keys, chance = Keys(), random.Random(size)
    order = chance.sample(range(size), min(size, _FEW + size // 100 + rounds))
    few, share, rest = order[:_FEW], order[_FEW : _FEW + size // 100], order[_FEW + size // 100 :]
    took_few = []
    with server.client(socket_timeout=60.0) as client:
        memory = (client.info("memory")["used_memory"] - empty) / size
        async with SessionManager(server.url, registry=None, attempt_timeout=5.0, restore_timeout=10.0) as manager:
            await in_turns(manager, rest[: rounds // 10], smallest.url, least)  # scripts loaded, connections open
            restore, save, growth = await in_turns(manager, rest, smallest.url, least)
            await cleaned(manager, 0)
            idle = await cleaned(manager, 0)
            for _ in range(5):
                expire(client, keys, few)
                took_few.append(await cleaned(manager, len(few)))
                fill(client, keys, few)
            expire(client, keys, share)
            took_share = await cleaned(manager, len(share))
        fill(client, keys, share)
    return Measured(size, restore, save, growth, memory, idle, median(took_few), len(share), took_share)


def run(sizes: list[int], rounds: int) -> list[Measured]:
    """Grow through the sizes, measuring at each."""
    found = []
    with (
        RedisServer() as server,
        RedisServer() as smallest,
        server.client(socket_timeout=60.0) as client,
        smallest.client() as other,
    ):
        empty = client.info("memory")["used_memory"]
        fill(other, Keys(), range(sizes[0]))
        for before, size in pairwise([0, *sizes]):
            fill(client, Keys(), range(before, size))
            found.append(asyncio.run(measured((server, smallest), (size, sizes[0]), rounds, empty)))
            print(f"{size:,} sessions: done", file=sys.stderr)
    return found


def goals(found: list[Measured]) -> list[Goal]:
    """Return what we ask of growth, at the sizes that were measured."""
    first, last = found[0], found[-1]
    return [
        Goal(f"restore at {last.sessions:,} sessions / at {first.sessions:,}", 1.1, last.growth),
        Goal(f"clean-up of {last.share_expired:,} expired among {last.sessions:,}, seconds", 1.0, last.share / 1000),
        Goal(
            f"clean-up of {_FEW} expired among {last.sessions:,} / among {first.sessions:,}", 2.0, last.few / first.few
        ),
    ]


def report(found: list[Measured]) -> None:
    """Print the table."""
    heads = (
        "sessions", "restore ms", "save ms", "restore ratio", "bytes each", "clean-up, 0 due, ms", f"{_FEW} due, ms", "1 % due, ms",
        "µs per expired",
    )  # fmt: skip
    rows = [
        (
            f"{each.sessions:,}", number(each.restore), number(each.save), number(each.growth), number(each.memory), number(each.idle),
            number(each.few), number(each.share), number(each.per_expired),
        )
        for each in found
    ]  # fmt: skip
    table("What a growing number of stored sessions costs", heads, rows)


def measure(*, quick: bool = False, sizes: str = "1000,10000,100000,1000000") -> Results:
    """Grow through the sizes. A million sessions take some minutes and 1 GB of memory."""
    steps = [1000, 20_000] if quick else sorted(map(int, sizes.split(",")))
    found = run(steps, 50 if quick else 400)
    report(found)
    return [asdict(each) for each in found], goals(found)


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))
