"""What each layer of one cycle costs on its own, in µs of CPU time, the best of several rounds.

    python benchmarks/overhead.py [--quick] [--json FILE]

A cycle is one enter and one leave. `layers` are what the SDK puts around any store: context manager, guard with breaker,
metrics, log events that no one listens to. `way` is what takes a command to Redis and back, without the network.
`state` depends on the size. So much of it as is JSON a naive cycle pays as well.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from time import process_time
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from prometheus_client import CollectorRegistry

from benchmarks.reporting import Goal, Results, command, table
from benchmarks.states import SIZES, made_state
from session_reuse import reusable_session
from session_reuse._browser_session import BrowserSession
from session_reuse._session.guarded_store import Access, GuardedStore
from session_reuse._session.options import ResolvedOptions
from session_reuse._state import document
from session_reuse._state.codec import Codec
from session_reuse._state.compression import compressor
from session_reuse._state.header import Header
from session_reuse._state.sealing import seal
from session_reuse._state.storage_state import validate_storage_state
from session_reuse._store.keys import Keys
from session_reuse._store.redis.batching import Batcher
from session_reuse._store.redis.redis_py import Command, Connections, LaneConnection
from session_reuse._telemetry import Telemetry
from session_reuse.config import Config
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.testing import MemoryStore

Step = Callable[[], Any]
AsyncStep = Callable[[], Coroutine[Any, Any, Any]]

_CALLS: Final = 400


def cost(step: Step, rounds: int) -> float:
    """Return the µs of one call."""
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        for _ in range(_CALLS):
            step()
        best = min(best, process_time() - began)
    return 1e6 * best / _CALLS


async def async_cost(step: AsyncStep, rounds: int) -> float:
    """Return the µs of one await."""
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        for _ in range(_CALLS):
            await step()
        best = min(best, process_time() - began)
    return 1e6 * best / _CALLS


async def layers(rounds: int) -> dict[str, float]:
    """Return what the SDK adds to one enter and one leave, whatever the store and the size."""
    guard = GuardedStore(MemoryStore(), Keys(), attempt_timeout=0.15)
    telemetry, config = Telemetry(CollectorRegistry()), Config()

    async def nothing(_timeout: float = 0.0) -> None:
        return None

    def objects() -> None:
        reusable_session("site/alice", "agent")
        ResolvedOptions.build(config)
        BrowserSession("site/alice", "agent")

    def counted() -> None:
        telemetry.entered("site/alice", Outcome.REUSED, 0.001)
        telemetry.saved("site/alice", SaveOutcome.SAVED, 0.001)

    async def guarded() -> None:
        await guard.attempt(Access.READ, nothing, 0.5)
        await guard.attempt(Access.WRITE, nothing, 2.0)

    bare = await async_cost(nothing, rounds)
    return {
        "context manager, options, session": cost(objects, rounds),
        "guard and breaker, both ways": await async_cost(guarded, rounds) - bare,
        "metrics, and log events that are filtered": cost(counted, rounds),
    }


class _Connections(Connections):
    """Connections without a network: each group of commands is answered in the next turn of the event loop."""

    async def open(self) -> LaneConnection:
        return _Connection(None, None)


class _Connection(LaneConnection):
    def write(self, commands: Sequence[Command]) -> None:  # noqa: ARG002
        asyncio.get_running_loop().call_soon(self.on_end, [b"OK"] * self._awaited)

    def progress(self) -> int:
        return 0

    async def release(self) -> None:
        """Give nothing back."""


async def way(rounds: int) -> dict[str, float]:
    """Return what the ways to Redis and out of the `with` cost, without the network."""

    async def nothing() -> None:
        return None

    batcher = Batcher(_Connections(None), lanes=2)
    command: Command = ("GETEX", "browser:session:site/alice", "PX", 86_400_000)

    async def crowd() -> None:
        await asyncio.gather(*(batcher.execute(command, command, timeout=1.0) for _ in range(64)))

    async def crowd_of_nothing() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(64)]
        for future in futures:
            future.set_result(None)
        await asyncio.gather(*futures)

    few = max(2, rounds // 4)
    in_crowd = (await async_cost(crowd, few) - await async_cost(crowd_of_nothing, few)) / 64
    return {
        "lane, nobody else, both ways": 2 * await async_cost(lambda: batcher.execute(command, timeout=1.0), rounds),
        "lane, 64 at once, both ways": 2 * in_crowd,
        "leaving in a shielded task": await async_cost(
            lambda: asyncio.shield(asyncio.ensure_future(nothing())), rounds
        ),
    }


def state_parts(size: str, rounds: int) -> dict[str, float]:
    """Return what is done to a state of this size, there and back."""
    state = made_state(SIZES[size])
    whole = {"fingerprint": "site/alice", "storage_state": state, "data": {}}
    body, _ = document.dump(whole)
    key, header = "browser:session:site/alice", Header(save_ids=("0123456789ab",) * 4, created_at=1, saved_at=2)
    codec, sealing = Codec(keys=(bytes(32),)), seal((bytes(32),))
    parts = {
        "JSON, as a naive cycle": cost(lambda: document.load(document.dump(whole)[0], "o"), rounds),
        "validation, twice": 2 * cost(lambda: validate_storage_state(state), rounds),
        "header": cost(lambda: Header.decode(header.encode()), rounds),
    }
    for name in ("zstd", "lz4", "zlib"):
        packer = compressor(name)
        packed = packer.compress(body)
        title = f"{name}, to {len(packed) / len(body):.2f} of the size"
        parts[title] = cost(lambda p=packer: p.decompress(p.compress(body), len(body)), rounds)  # type: ignore[misc]
    small = compressor("auto").compress(body)
    head = header.encode()
    parts["AES-256-GCM"] = cost(lambda: sealing.open("a", sealing.key_id, sealing.close(small, head), head), rounds)
    parts["codec as a whole"] = cost(lambda: codec.decode(codec.encode(body, "o", header, key), key), rounds)
    return parts


def measure(*, quick: bool = False, sizes: str = "2 KB,20 KB,200 KB") -> Results:
    """Measure each part."""
    rounds = 5 if quick else 40
    parts = {"layers": asyncio.run(layers(rounds)), "way": asyncio.run(way(rounds))}
    parts |= {f"state of {size}": state_parts(size, rounds) for size in sizes.split(",") if size}
    for title, found in parts.items():
        table(title, ("part", "µs per cycle"), [(name, f"{micros:.1f}") for name, micros in found.items()])
    return parts, [Goal("our own layers, µs per cycle", 10.0, sum(parts["layers"].values()))]


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))
