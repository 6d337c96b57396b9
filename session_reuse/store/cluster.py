"""The nodes of a Redis Cluster: where a command goes, and who is who. Must never hold up one node's work for another's.

Each node has lanes of its own. redis-py's cluster pipeline would fail commands for a healthy node together with those
for a dead one, ask the Cluster anew in the caller's time, and cut all connections when that fails. Here a node that
fails raises a doubt, and the doubt is settled in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, SlotNotCoveredError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from session_reuse.store.batching import LARGE, Command, Replies
from session_reuse.store.connections import LaneConnections
from session_reuse.store.nodes import NodeLanes

_SLOTS: Final = 16384
_LEARN_AGAIN_AFTER: Final = 0.2
"""Shortest time between two looks at who is who."""
_PATIENCE: Final = 1.0
"""Time for one look; a frozen node must not be waited for."""
_DOUBTS: Final = (RedisConnectionError, RedisTimeoutError, ClusterDownError, MovedError, ReadOnlyError)
_SCRIPTED: Final = frozenset({"EVAL", "EVALSHA"})


class ClusterTopology:
    """The nodes of a Cluster, with a batcher for each."""

    def __init__(self, client: RedisCluster, lanes: int) -> None:
        self._client = client
        self._lanes = lanes
        self._lanes_by_node: dict[str, NodeLanes] = {}
        self._gone: list[NodeLanes] = []
        self._learning: asyncio.Task[None] | None = None
        self._learned = 0.0
        self._suspect: str | None = None
        self._closed = False

    async def execute(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands, each to its node; a node that fails leaves its error in place of its replies.

        Raises:
            Exception: whatever stopped all of them.
        """
        if not self._client.nodes_manager.slots_cache:
            async with asyncio.timeout(timeout):
                await self._known()
        groups = self._grouped(commands)
        if len(groups) == 1:
            node = groups[0][0]
            return await self._lanes_to(node).batcher.execute(*commands, timeout=timeout, size=size)
        parts = await asyncio.gather(
            *(self._submitted(node, [commands[place] for place in places], timeout, size) for node, places in groups),
            return_exceptions=True,
        )
        return _assembled([places for _, places in groups], parts)

    def _submitted(
        self, node: ClusterNode, commands: list[Command], timeout: float, size: int
    ) -> asyncio.Future[Replies]:  # fmt: skip
        size = _bytes(commands) if size > LARGE else size
        return self._lanes_to(node).batcher.submit(*commands, timeout=timeout, size=size)

    def _grouped(self, commands: Sequence[Command]) -> list[tuple[ClusterNode, list[int]]]:
        """Return the places of the commands by node; one without a key goes where the one before it went."""
        groups: dict[str, tuple[ClusterNode, list[int]]] = {}
        node: ClusterNode | None = None
        for place, command in enumerate(commands):
            if node is None or command[0] != "WAIT":
                node = self._node(command[3] if command[0] in _SCRIPTED else command[1])
            groups.setdefault(node.name, (node, []))[1].append(place)
        return list(groups.values())

    def _node(self, key: str | bytes) -> ClusterNode:
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        nodes = self._client.nodes_manager.slots_cache.get(slot)
        if not nodes:
            self._doubt(None)
            raise SlotNotCoveredError("no node of the Cluster serves the slot of this key")
        return nodes[0]

    def _lanes_to(self, node: ClusterNode) -> NodeLanes:
        known = self._lanes_by_node.get(node.name)
        if known is not None:
            if known.node is node:
                return known
            self._gone.append(known)  # it was away, and redis-py has made it anew
        lanes = self._lanes_by_node[node.name] = NodeLanes(node, self._lanes, self._send)
        return lanes

    async def _send(self, node: ClusterNode, commands: Sequence[Command]) -> Replies:
        try:
            replies = await self._lanes_to(node).connections.send(commands)
        except BaseException:
            self._doubt(node.name)
            raise
        if any(isinstance(reply, _DOUBTS) for reply in replies):
            self._doubt(node.name)
        if any(isinstance(reply, AskError) for reply in replies):  # MOVED is one of them
            await self._redirect(commands, replies)
        return replies

    async def _redirect(self, commands: Sequence[Command], replies: Replies) -> None:
        """Follow MOVED and ASK once; what is sent on again is left for the next attempt."""
        elsewhere: dict[str, list[int]] = {}
        for place, reply in enumerate(replies):
            if isinstance(reply, MovedError):
                with suppress(KeyError):  # a slot that had no node until now
                    await self._client.nodes_manager.move_slot(reply)
            if isinstance(reply, AskError):
                elsewhere.setdefault(f"{reply.host}:{reply.port}", []).append(place)
            elif commands[place][0] == "WAIT" and elsewhere:
                replies[place] = ClusterDownError("the writes went to another node")
        for name, places in elsewhere.items():
            node = self._client.get_node(node_name=name)
            if node is None:
                self._doubt(None)
            else:
                await _resend(self._lanes_to(node).connections, commands, replies, places)

    async def _known(self) -> None:
        """Wait until the nodes are known."""
        await asyncio.shield(self._learn())

    def _doubt(self, name: str | None) -> None:
        """Have a look soon who is who; `name` has given reason for it and is asked last."""
        if not self._closed:
            self._suspect = name
            self._learn()

    def _learn(self) -> asyncio.Task[None]:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.get_running_loop().create_task(self._look(), name="session_reuse:topology")
            self._learning.add_done_callback(_retrieved)
        return self._learning

    async def _look(self) -> None:
        await asyncio.sleep(max(0.0, self._learned + _LEARN_AGAIN_AFTER - monotonic()))
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._client.nodes_manager.slots_cache:
                    await self._client.nodes_manager.initialize(last_failed_node_name=self._suspect)
                else:
                    await self._client.initialize()
        finally:
            self._learned = monotonic()
        await self._part()

    async def _part(self) -> None:
        """Let go of the connections to nodes that have left; redis-py has forgotten these."""
        present = self._client.nodes_manager.nodes_cache
        for name, lanes in list(self._lanes_by_node.items()):
            if present.get(name) is not lanes.node:
                self._gone.append(self._lanes_by_node.pop(name))
        for lanes in self._gone:
            await lanes.connections.renew()

    async def check(self, *, timeout: float) -> None:
        """Have every primary say what it is, so that a change of roles is noticed while nobody uses the Cluster."""
        await self._known_afresh()
        nodes = {places[0].name: places[0] for places in self._client.nodes_manager.slots_cache.values()}.values()
        for node, role in zip(nodes, await asyncio.gather(*(self._role(node, timeout) for node in nodes)), strict=True):
            if role != b"master":
                self._doubt(node.name)
        await self._known_afresh()

    async def _role(self, node: ClusterNode, timeout: float) -> Any:
        try:
            (reply,) = await self._lanes_to(node).batcher.execute(("ROLE",), timeout=timeout)
        except Exception:  # noqa: BLE001  (redis-py raises more than RedisError: see failures.py)
            return None
        return reply[0] if isinstance(reply, list) else None

    def server_of(self, key: str) -> str:
        """Return the primary that a key lives on; empty while it is not known."""
        nodes = self._client.nodes_manager.slots_cache.get(key_slot(key.encode()))
        return nodes[0].name if nodes else ""

    def names(self) -> Collection[str]:
        """Return all nodes that are known."""
        return {"", *self._client.nodes_manager.nodes_cache}

    async def primaries(self) -> list[Any]:
        """Return all primaries; every slot must have one."""
        await self._known_afresh()
        slots = self._client.nodes_manager.slots_cache
        if len(slots) < _SLOTS:
            self._doubt(None)
            raise SlotNotCoveredError(f"{_SLOTS - len(slots)} slots of the Cluster have no node")
        return list({nodes[0].name: nodes[0] for nodes in slots.values()}.values())

    async def servers(self) -> list[Any]:
        """Return all nodes."""
        await self._known_afresh()
        return list(self._client.nodes_manager.nodes_cache.values())

    async def _known_afresh(self) -> None:
        if not self._client.nodes_manager.slots_cache:
            await self._known()
        elif self._learning is not None and not self._learning.done():
            await asyncio.wait([self._learning])

    async def aclose(self) -> None:
        """End all lanes, and close what is idle: a client whose first look was cut short would leave it (redis-py 8.1.0)."""
        self._closed = True
        for lanes in [*self._lanes_by_node.values(), *self._gone]:
            await lanes.aclose()
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.wait([self._learning])
        manager = self._client.nodes_manager
        for node in [*manager.nodes_cache.values(), *manager.startup_nodes.values()]:
            await node.disconnect_free_connections()


async def _resend(
    connections: LaneConnections, commands: Sequence[Command], replies: Replies, places: list[int]
) -> None:  # fmt: skip
    again: list[Command] = []
    for place in places:
        if not isinstance(replies[place], MovedError):
            again.append(("ASKING",))
        again.append(commands[place])
    try:
        answers = await connections.send(again)
    except Exception:  # noqa: BLE001  (as above)
        return
    answers = [answer for answer, command in zip(answers, again, strict=True) if command != ("ASKING",)]
    for place, answer in zip(places, answers, strict=True):
        replies[place] = answer


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
    """Look at the result, so that nobody complains that nobody has."""
    if not task.cancelled():
        task.exception()
