"""The nodes of a Redis Cluster: where a command goes, and how a change of roles is noticed.

Each node has lanes of its own. redis-py's cluster pipeline would fail commands for a healthy node together with those
for a dead one, ask the Cluster anew in the caller's time, and cut all connections when that fails. Here a node that
fails has the Cluster asked in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._store.redis.batching import LARGE, Batcher
from session_reuse._store.redis.redis_py import ClusterNodes, Command, Connections, Replies

_LEARN_AGAIN_AFTER: Final = 0.2
"""Shortest time between two questions who serves what."""
_PATIENCE: Final = 1.0
"""Time for one such question; a frozen node must not be waited for."""
_DOUBTS: Final = (
    RedisConnectionError, RedisTimeoutError, ClusterDownError, MovedError, ReadOnlyError, TimeoutError, OSError
)  # fmt: skip
_SCRIPTED: Final = frozenset({"EVAL", "EVALSHA"})


class ClusterTopology:
    """The nodes of a Cluster, with a batcher for each."""

    def __init__(self, client: RedisCluster, lanes: int, connect_timeout: float = 0.25) -> None:
        self._nodes = ClusterNodes(client)
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
        """Send commands, each to its node; a node that fails leaves its error in place of its replies.

        Raises:
            Exception: whatever stopped all of them.
        """
        if not self._nodes.are_known:
            with self._timeouts.until(self._timeouts.time() + 2 * self._connect_timeout):
                await asyncio.shield(self._learn())
        groups = self._grouped(commands)
        if len(groups) == 1:
            replies = await self._batcher(groups[0][0]).execute(*commands, timeout=timeout, size=size)
        else:
            parts = await asyncio.gather(
                *(self._sent(node, [commands[place] for place in places], timeout, size) for node, places in groups),
                return_exceptions=True,
            )
            replies = _assembled([places for _, places in groups], parts)
        for reply in replies:
            if isinstance(reply, AskError):  # MOVED is one of them
                await self._redirect(commands, replies, timeout)
                break
        return replies

    def _sent(
        self, node: ClusterNode, commands: list[Command], timeout: float, size: int
    ) -> asyncio.Future[Replies]:  # fmt: skip
        size = _bytes(commands) if size > LARGE else size
        return self._batcher(node).execute(*commands, timeout=timeout, size=size)

    def _grouped(self, commands: Sequence[Command]) -> list[tuple[ClusterNode, list[int]]]:
        """Return the places of the commands by node; one without a key goes where the one before it went."""
        groups: dict[str, tuple[ClusterNode, list[int]]] = {}
        node: ClusterNode | None = None
        for place, command in enumerate(commands):
            if node is None or command[0] != "WAIT":
                node = self._nodes.primary_of(command[3] if command[0] in _SCRIPTED else command[1])
            if node is None:
                self._doubt(None)
                raise SlotNotCoveredError("no node of the Cluster serves the slot of this key")
            groups.setdefault(node.name, (node, []))[1].append(place)
        return list(groups.values())

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

    async def _redirect(self, commands: Sequence[Command], replies: Replies, timeout: float) -> None:
        """Follow MOVED and ASK once; what is sent on again is left for the next attempt."""
        elsewhere: dict[str, list[int]] = {}
        for place, reply in enumerate(replies):
            if isinstance(reply, MovedError):
                await self._nodes.follow(reply)
            if isinstance(reply, AskError):
                elsewhere.setdefault(f"{reply.host}:{reply.port}", []).append(place)
            elif commands[place][0] == "WAIT" and elsewhere:
                replies[place] = ClusterDownError("the writes went to another node")
        for name, places in elsewhere.items():
            node = self._nodes.by_name().get(name)
            if node is None:
                self._doubt(None)
            else:
                await self._send_again(node, commands, replies, places, timeout)

    async def _send_again(
        self, node: ClusterNode, commands: Sequence[Command], replies: Replies, places: list[int], timeout: float
    ) -> None:
        again: list[Command] = []
        for place in places:
            if not isinstance(replies[place], MovedError):
                again.append(("ASKING",))
            again.append(commands[place])
        try:
            answers = await self._batcher(node).execute(*again, timeout=timeout)
        except Exception:  # noqa: BLE001  (the redirection stands as the reply, and the next attempt follows it)
            return
        answers = [answer for answer, command in zip(answers, again, strict=True) if command != ("ASKING",)]
        for place, answer in zip(places, answers, strict=True):
            replies[place] = answer

    def _doubt(self, name: str | None) -> None:
        """Have the Cluster asked soon who serves what; `name` has given reason for it and is asked last."""
        if not self._closed:
            self._suspect = name
            self._learn()

    def _learn(self) -> asyncio.Task[None]:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.get_running_loop().create_task(self._ask(), name="session_reuse:topology")
            self._learning.add_done_callback(_retrieved)
        return self._learning

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._learned + _LEARN_AGAIN_AFTER - loop.time()))
        try:
            with self._timeouts.until(self._timeouts.time() + _PATIENCE):
                await self._nodes.learn(self._suspect)
        finally:
            self._learned = loop.time()
        present = self._nodes.by_name()
        for name, (node, batcher) in list(self._batchers.items()):
            if present.get(name) is not node:
                self._gone.append(batcher)
                del self._batchers[name]
        for batcher in self._gone:  # redis-py has forgotten the connections of nodes that have left
            batcher.renew()

    async def check(self, *, timeout: float) -> None:
        """Have every primary say what it is, so that a change of roles is noticed while nobody uses the Cluster."""
        nodes = await self.primaries()
        for node, role in zip(nodes, await asyncio.gather(*(self._role(node, timeout) for node in nodes)), strict=True):
            if role != b"master":
                self._doubt(node.name)
        await self._settled()

    async def _role(self, node: ClusterNode, timeout: float) -> Any:
        try:
            (reply,) = await self._batcher(node).execute(("ROLE",), timeout=timeout)
        except Exception:  # noqa: BLE001  (redis-py raises more than RedisError: see failures.py)
            return None
        return reply[0] if isinstance(reply, list) else None

    def server_of(self, key: str) -> str:
        """Return the primary that a key lives on; empty while it is not known."""
        node = self._nodes.primary_of(key)
        return node.name if node is not None else ""

    def names(self) -> Collection[str]:
        """Return all nodes that are known."""
        return {"", *self._nodes.by_name()}

    async def primaries(self) -> list[Any]:
        """Return all primaries; every slot must have one."""
        await self._settled()
        try:
            return list(self._nodes.primaries())
        except SlotNotCoveredError:
            self._doubt(None)
            raise

    async def servers(self) -> list[Any]:
        """Return all nodes."""
        await self._settled()
        return list(self._nodes.by_name().values())

    async def _settled(self) -> None:
        """Wait until the nodes are known, and until a question that is under way has been answered."""
        if not self._nodes.are_known:
            await asyncio.shield(self._learn())
        elif self._learning is not None and not self._learning.done():
            await asyncio.wait([self._learning])

    async def aclose(self) -> None:
        """End all lanes and close what is idle."""
        self._closed = True
        for batcher in [*(batcher for _, batcher in self._batchers.values()), *self._gone]:
            await batcher.aclose()
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        await self._nodes.close_idle()


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


def _retrieved(task: asyncio.Task[None]) -> None:
    """Look at the result, so that no warning says that nothing did."""
    if not task.cancelled():
        task.exception()
