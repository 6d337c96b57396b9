"""The nodes of a Redis Cluster: where a command goes, and how a change of roles is noticed.

Each node has lanes of its own. redis-py's cluster pipeline would fail commands for a healthy node together with those
for a dead one, ask the Cluster anew in the caller's time, and cut all connections when that fails. Here a node that
fails has the Cluster asked in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from session_reuse._cancellation import retrieve
from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._store.redis.batching import LARGE, Batcher
from session_reuse._store.redis.redis_py import Argument, Command, Connections, Replies

_SLOTS: Final = 16384
_LEARN_AGAIN_AFTER: Final = 0.2
"""Shortest time between two requests for the map of slots."""
_PATIENCE: Final = 1.0
"""Seconds for one such request. A frozen node must not hold it up."""
_DOUBTS: Final = (
    RedisConnectionError, RedisTimeoutError, ClusterDownError, MovedError, ReadOnlyError, TimeoutError, OSError
)  # fmt: skip


class ClusterTopology:
    """The nodes of a Cluster, with a batcher for each."""

    def __init__(self, client: RedisCluster, lanes: int, connect_timeout: float = 0.25) -> None:
        self._manager = client.nodes_manager
        self._lanes = lanes
        self._connect_timeout = connect_timeout
        self._timeouts = LoopTimeouts()
        self._batchers: dict[str, tuple[ClusterNode, Batcher]] = {}
        self._gone: list[Batcher] = []
        self._learning: asyncio.Task[None] | None = None
        self._learned = -_LEARN_AGAIN_AFTER
        self._suspect: str | None = None
        self._closed = False

    async def execute(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands, each to its node. A node that fails leaves its error in place of its replies.

        Raises:
            Exception: all of them failed.
        """
        if not self._manager.slots_cache:
            with self._timeouts.until(self._timeouts.time() + 2 * self._connect_timeout):
                await asyncio.shield(self._learn())  # other callers wait for it, too
        groups = self._grouped(commands)
        if len(groups) == 1:
            replies = await self._batcher(groups[0][0]).execute(*commands, timeout=timeout, size=size)
        else:
            parts = await asyncio.gather(
                *(self._sent(node, [commands[place] for place in places], timeout, size) for node, places in groups),
                return_exceptions=True,
            )
            replies = _assembled([places for _, places in groups], parts)
        for place, reply in enumerate(replies):
            if isinstance(reply, AskError):  # MOVED is one of them
                # A WAIT belongs to the command before it.
                wait = commands[-1:] if place == len(commands) - 2 and commands[-1][0] == "WAIT" else ()
                answers = await self._followed(reply, (commands[place], *wait), timeout, size)
                replies[place : place + len(answers)] = answers
        return replies

    def _sent(
        self, node: ClusterNode, commands: list[Command], timeout: float, size: int
    ) -> asyncio.Future[Replies]:  # fmt: skip
        # Each node chooses the lane by its own share of the bytes.
        size = _bytes(commands) if size > LARGE else size
        return self._batcher(node).execute(*commands, timeout=timeout, size=size)

    def _grouped(self, commands: Sequence[Command]) -> list[tuple[ClusterNode, list[int]]]:
        """Return the places of the commands by node. A command without a key goes where the one before it went."""
        groups: dict[str, tuple[ClusterNode, list[int]]] = {}
        node: ClusterNode | None = None
        for place, command in enumerate(commands):
            if node is None or command[0] != "WAIT":
                node = self._primary_of(command[3] if command[0] in {"EVAL", "EVALSHA"} else command[1])
            if node is None:
                self._doubt(None)
                raise SlotNotCoveredError("no node of the Cluster serves the slot of this key")
            groups.setdefault(node.name, (node, []))[1].append(place)
        return list(groups.values())

    def _primary_of(self, key: Argument) -> ClusterNode | None:
        nodes = self._manager.slots_cache.get(key_slot(key if isinstance(key, bytes) else str(key).encode()))
        return nodes[0] if nodes else None

    def _batcher(self, node: ClusterNode) -> Batcher:
        known = self._batchers.get(node.name)
        if known is not None:
            if known[0] is node:
                return known[1]
            self._gone.append(known[1])  # it was away, and redis-py has made it anew
        batcher = Batcher(
            Connections(node),
            self._lanes,
            connect_timeout=self._connect_timeout,
            on_error=partial(self._notice, node.name),
            timeouts=self._timeouts,
        )
        self._batchers[node.name] = (node, batcher)
        return batcher

    def _notice(self, name: str, error: Exception) -> None:
        if isinstance(error, _DOUBTS):
            self._doubt(name)

    async def _followed(
        self, redirection: AskError, commands: tuple[Command, ...], timeout: float, size: int
    ) -> Replies:  # fmt: skip
        """Return the replies of the node that a server has named for a key, or the error in place of the first one.

        At once, because the map of slots does not help: after a fail-over, other nodes name the old primary for a while.
        """
        try:
            if isinstance(redirection, MovedError):
                with suppress(KeyError):  # a slot that had no node until now
                    await self._manager.move_slot(redirection)
            node = self._manager.get_node(host=redirection.host, port=redirection.port)
            if node is None:
                self._doubt(None)
                return [redirection]
            asking = () if isinstance(redirection, MovedError) else (("ASKING",),)
            return (await self._sent(node, [*asking, *commands], timeout, size))[len(asking) :]
        except Exception as error:  # noqa: BLE001  (it stands in place of the reply)
            return [error]

    def _doubt(self, name: str | None) -> None:
        """Read the map of slots soon. `name` is the node in doubt, which is asked last."""
        if not self._closed:
            self._suspect = name
            self._learn()

    def _learn(self) -> asyncio.Task[None]:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.get_running_loop().create_task(self._read_slots(), name="session_reuse:topology")
            self._learning.add_done_callback(retrieve)
        return self._learning

    async def _read_slots(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._learned + _LEARN_AGAIN_AFTER - loop.time()))
        try:
            with self._timeouts.until(self._timeouts.time() + _PATIENCE):
                await self._manager.initialize(last_failed_node_name=self._suspect)
        finally:
            self._learned = loop.time()
        for name, (node, batcher) in list(self._batchers.items()):
            if self._manager.nodes_cache.get(name) is not node:
                self._gone.append(batcher)
                del self._batchers[name]
        for batcher in self._gone:  # redis-py has forgotten the connections of nodes that have left
            batcher.renew()

    async def check(self, *, timeout: float) -> None:
        """Read the role of every primary, so that a change is noticed while the Cluster is not used."""
        nodes = await self.primaries()
        for node, role in zip(nodes, await asyncio.gather(*(self._role(node, timeout) for node in nodes)), strict=True):
            if role != b"master":
                self._doubt(node.name)
        await self._settled()

    async def _role(self, node: ClusterNode, timeout: float) -> object:
        try:
            (reply,) = await self._batcher(node).execute(("ROLE",), timeout=timeout)
        except Exception:  # noqa: BLE001  (redis-py raises more than RedisError: see failures.py)
            return None  # no answer is a doubt, too
        return reply[0] if isinstance(reply, list) else None

    def server_of(self, key: str) -> str:
        """Return the primary that a key lives on. Empty while it is not known."""
        node = self._primary_of(key)
        return node.name if node is not None else ""

    def names(self) -> Collection[str]:
        """Return all nodes that are known."""
        return {"", *self._manager.nodes_cache}

    async def primaries(self) -> list[ClusterNode]:
        """Return all primaries.

        Raises:
            SlotNotCoveredError: a slot has none.
        """
        await self._settled()
        slots = self._manager.slots_cache
        if len(slots) < _SLOTS:
            self._doubt(None)
            raise SlotNotCoveredError(f"{_SLOTS - len(slots)} slots of the Cluster have no node")
        return list({nodes[0].name: nodes[0] for nodes in slots.values()}.values())

    async def servers(self) -> list[ClusterNode]:
        """Return all nodes."""
        await self._settled()
        return list(self._manager.nodes_cache.values())

    async def _settled(self) -> None:
        """Wait until the nodes are known, and until a request for them that is under way has ended."""
        if not self._manager.slots_cache:
            await asyncio.shield(self._learn())
        elif self._learning is not None and not self._learning.done():
            await asyncio.wait([self._learning])

    async def aclose(self) -> None:
        """End all lanes and close idle connections."""
        self._closed = True
        for batcher in [*(batcher for _, batcher in self._batchers.values()), *self._gone]:
            await batcher.aclose()
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        # A client that was not initialized by itself would leave these open (redis-py 8.1.0).
        for node in [*self._manager.nodes_cache.values(), *self._manager.startup_nodes.values()]:
            await node.disconnect_free_connections()


def _assembled(groups: list[list[int]], parts: Sequence[Replies | BaseException]) -> Replies:
    failed = [part for part in parts if isinstance(part, BaseException)]
    if len(failed) == len(parts):
        raise failed[0]
    replies: Replies = [None] * sum(map(len, groups))
    for places, part in zip(groups, parts, strict=True):
        for position, place in enumerate(places):
            replies[place] = part if isinstance(part, BaseException) else part[position]
    return replies


def _bytes(commands: list[Command]) -> int:
    return sum(len(part) for command in commands for part in command if isinstance(part, bytes))
