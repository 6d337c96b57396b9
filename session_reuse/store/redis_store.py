"""Sessions in Redis: one round trip to enter, one to leave. Must never send a payload through Lua.

Speaks to standalone servers, Sentinel and Cluster alike; from redis-py it needs the pipeline only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from session_reuse.resilience.failure import Failure
from session_reuse.store._redis_py import Command, Replies
from session_reuse.store.deadlines import Deadlines, Entry
from session_reuse.store.failures import error_code, failure_from, writes_refused
from session_reuse.store.interface import (
    Busy,
    Commit,
    CommitOutcome,
    Committed,
    Entered,
    Lease,
    Listed,
    Touch,
    TouchOutcome,
    WrongType,
)
from session_reuse.store.keys import Keys, SessionKeys
from session_reuse.store.listing import fingerprints, list_sessions
from session_reuse.store.sender import Sender, checked, milliseconds, text
from session_reuse.store.topology import topology_of

_NO_TOKEN: Final = "0" * 20
_STAGING_MS: Final = 60_000
_AGENTS_OUTLIVE: Final = 3600.0
"""How much longer than the session the list of its agents is kept, so that the clean-up finds it."""
_PERHAPS_NOT_INDEXED: Final = frozenset({CommitOutcome.RECREATED, CommitOutcome.RECOVERED})
"""Outcomes that tell of an expiry or a fail-over, in which the index may have lost the session."""
_BYTES_PER_SECOND: Final = 16 * 1024 * 1024
"""Speed a link must have for large values; they get so much more time."""


class RedisStore:
    """Sessions over an asyncio redis-py client.

    Args:
        client: `redis.asyncio.Redis`, `RedisCluster`, or a double of them, without `decode_responses`.
        keys: the names.
        lanes: connections for small values.
        wait: replicas to wait for after each save, and for how many seconds; 0 for none.
        own_client: whether `aclose` closes the client.
        connect_timeout: seconds for one step of opening a connection.
    """

    def __init__(
        self, client: Any, keys: Keys, *, lanes: int = 2, wait: tuple[int, float] = (0, 0.1), own_client: bool = True,
        connect_timeout: float = 0.25,
    ) -> None:  # fmt: skip
        self.client = client
        self.keys = keys
        self.topology = topology_of(client, lanes, connect_timeout)
        self._sender = Sender(self.topology)
        self.deadlines = Deadlines(keys, self._sender)
        self._send = self._sender.send
        self._script = self._sender.script
        self._wait = wait
        self._own_client = own_client

    async def enter(
        self, fingerprint: str, *, ttl: float | None, timeout: float, lease: tuple[str, float] | None = None,
        count_use: bool = False,
    ) -> Entered:  # fmt: skip
        """Read a session and start its time to live anew; with `lease` (holder, seconds) take the lease as well."""
        keys = self.keys.of(fingerprint)
        key = keys.session
        read: Command = ("GET", key) if ttl is None else ("GETEX", key, "PX", _ms(ttl))
        if lease is None and not count_use:
            (value,) = await self._send(read, timeout=timeout)
            if type(value) is bytes:
                return Entered(value)
            return await self._entered(fingerprint, await self._readable(value, key, timeout), timeout)
        commands: list[Command] = []
        if lease is not None:
            holder, seconds = lease
            names = (key, keys.lease, keys.tombstone)
            commands.append(self._script("acquire", names, holder, _ms(seconds)))
        if count_use:
            commands.append(self._script("count_use", (key,)))
        *answers, value = await self._send(*commands, read, timeout=timeout)
        held = _lease(_checked(answers.pop(0)), lease[0]) if lease is not None else None
        uses = int(_checked(answers.pop(0))) if count_use else None
        try:
            readable = await self._readable(value, key, timeout)
        except WrongType:
            raise WrongType(held) from None
        return await self._entered(fingerprint, readable, timeout, held, uses)

    async def _entered(
        self, fingerprint: str, value: bytes | None, timeout: float, lease: Lease | Busy | None = None,
        uses: int | None = None,
    ) -> Entered:  # fmt: skip
        """Return the answer; on a miss with the last invalidation, so that a first save is not older than it looks."""
        if value is not None:
            return Entered(value, lease, uses)
        epoch: int | None = None
        with suppress(Failure, ValueError):
            (reply,) = await self._send(("GET", self.keys.of(fingerprint).tombstone), timeout=timeout)
            epoch = int(_checked(reply) or 0)
        return Entered(None, lease, uses, epoch)

    async def read(self, fingerprint: str, *, timeout: float) -> bytes | None:
        """Read a session and leave its time to live alone."""
        key = self.keys.session(fingerprint)
        (value,) = await self._send(("GET", key), timeout=timeout)
        return _value(value)

    async def commit(self, commit: Commit, *, timeout: float) -> Committed:
        """Stage the payload by a native SET and commit it by script, in one write together with the index."""
        fingerprint, keys = commit.fingerprint, self.keys.of(commit.fingerprint)
        staging = keys.staging(commit.save_id)
        commands: list[Command] = []
        if not commit.indexed:
            commands.append(self.deadlines.enter(fingerprint, commit.ttl))
        if commit.agent_id is not None:
            commands.append(self._affinity(commit.agent_id, fingerprint, commit.ttl))
        commands.append(("SET", staging, commit.value, "PX", _STAGING_MS))
        position = len(commands)
        commands.append(self._commit_script(commit, keys, staging))
        size = len(commit.value)
        timeout += size / _BYTES_PER_SECOND
        if self._wait[0]:
            commands.append(("WAIT", self._wait[0], _ms(self._wait[1])))
            timeout += self._wait[1]
        replies = await self._send(*commands, timeout=timeout, size=size)
        _checked(replies[position - 1])
        committed = _committed(_checked(replies[position]), replies[position + 1 :])
        if committed.outcome is not CommitOutcome.SAVED or not commit.indexed:
            await self._follow_up(commit, committed, None if commit.indexed else replies[0], timeout)
        return committed

    async def _follow_up(self, commit: Commit, committed: Committed, entered: Any, timeout: float) -> None:
        """Put the index right after what is rare; what fails here is put right by the clean-up's repair."""
        commands: list[Command] = []
        if committed.outcome.written and (isinstance(entered, Exception) or committed.outcome in _PERHAPS_NOT_INDEXED):
            commands.append(self.deadlines.enter(commit.fingerprint, commit.ttl))
        elif committed.outcome is CommitOutcome.STALE and not committed.exists and commit.agent_id is not None:
            commands.append(self.deadlines.forget_affinity(commit.agent_id, commit.fingerprint))
        with suppress(Failure):
            if commands:
                await self._send(*commands, timeout=timeout)
            if committed.outcome is CommitOutcome.STALE and isinstance(entered, list) and entered[0]:
                mine = Entry(commit.fingerprint, _text(entered[1]))
                await self.deadlines.settle([(mine, None)], timeout=timeout)

    def _commit_script(self, commit: Commit, keys: SessionKeys, staging: str) -> Command:
        names = (keys.session, staging, keys.lease, keys.tombstone, keys.agents, keys.quarantine)
        return self._script(
            "commit", names, commit.expectation.value, commit.known, f"{commit.epoch:020d}", commit.save_id,
            *_lease_arguments(commit.lease), int(commit.release), _age(commit), _ms(commit.ttl),
            commit.agent_id or "", _ms(commit.ttl + _AGENTS_OUTLIVE), int(commit.fresh), commit.score_change,
            f"{commit.created_at:014d}",
        )  # fmt: skip

    async def touch(self, touch: Touch, *, timeout: float) -> TouchOutcome:
        """Start the time to live of an unchanged session anew."""
        fingerprint, keys = touch.fingerprint, self.keys.of(touch.fingerprint)
        names = (keys.session, keys.lease, keys.tombstone, keys.agents)
        command = self._script(
            "touch", names, f"{touch.epoch:020d}", *_lease_arguments(touch.lease), int(touch.release),
            _ms(touch.ttl), touch.agent_id or "", _ms(touch.ttl + _AGENTS_OUTLIVE), touch.score_change,
        )  # fmt: skip
        commands = [command]
        if touch.agent_id is not None:
            commands.append(self._affinity(touch.agent_id, fingerprint, touch.ttl))
        replies = await self._send(*commands, timeout=timeout)
        outcome, *detail = _checked(replies[0])
        touched = TouchOutcome(_text(outcome))
        if touched is TouchOutcome.STALE and touch.agent_id is not None and not detail[0]:
            with suppress(Failure):
                await self._send(self.deadlines.forget_affinity(touch.agent_id, fingerprint), timeout=timeout)
        return touched

    async def renew(self, fingerprint: str, lease: Lease, ttl: float, *, timeout: float) -> bool:
        """Prolong a lease; False when it is ours no more."""
        command = self._script("renew", (self.keys.of(fingerprint).lease,), *_lease_arguments(lease), _ms(ttl))
        (reply,) = await self._send(command, timeout=timeout)
        return bool(_checked(reply))

    async def release(self, fingerprint: str, lease: Lease, *, timeout: float) -> bool:
        """Give a lease back; False when it was ours no more."""
        command = self._script("release", (self.keys.of(fingerprint).lease,), *_lease_arguments(lease))
        (reply,) = await self._send(command, timeout=timeout)
        return bool(_checked(reply))

    async def invalidate(self, fingerprint: str, *, ttl: float, timeout: float) -> bool:
        """Delete a session, its lease and its agents' affinity, and refuse late saves for `ttl` seconds."""
        keys = self.keys.of(fingerprint)
        names = (keys.session, keys.lease, keys.tombstone, keys.agents, keys.quarantine)
        # First the index: a new login that comes right after the script enters itself, and must stay in.
        _checked((await self._send(self.deadlines.leave(fingerprint), timeout=timeout))[0])
        (reply,) = await self._send(self._script("invalidate", names, _ms(ttl)), timeout=timeout)
        _, existed, agents = _checked(reply)
        if agents:
            forget = [self.deadlines.forget_affinity(_text(agent), fingerprint) for agent in agents]
            with suppress(Failure):  # a hint, which ends by itself
                await self._send(*forget, timeout=timeout)
        return bool(existed)

    async def mark(self, fingerprint: str, *, created_at: int, epoch: int, change: int, timeout: float) -> int | None:
        """Change the error score of this very session; None when another has replaced it."""
        arguments = (f"{created_at:014d}", f"{epoch:020d}", change)
        (reply,) = await self._send(
            self._script("mark", (self.keys.session(fingerprint),), *arguments), timeout=timeout
        )
        score = int(_checked(reply))
        return None if score < 0 else score

    async def affinity(self, agent_id: str, *, timeout: float) -> str | None:
        """Return the fingerprint the agent used last."""
        (reply,) = await self._send(("GET", self.keys.affinity(agent_id)), timeout=timeout)
        try:
            value = _value(reply)
            return value.decode() if value else None
        except (WrongType, UnicodeDecodeError):
            return None

    def sessions(self, *, timeout: float) -> AsyncIterator[Listed]:
        """List the sessions by cursor, over all primaries of a Cluster."""
        return list_sessions(self.topology, self._sender, self.keys, timeout)

    def fingerprints(self, *, timeout: float) -> AsyncIterator[list[str]]:
        """Yield the fingerprints of all sessions in pages, by cursor."""
        return fingerprints(self.topology, self.keys, timeout)

    def server_of(self, key: str) -> str:
        """Return which primary of a Cluster a key lives on, as far as is known now; empty where there is only one."""
        return self.topology.server_of(key)

    def servers(self) -> Collection[str]:
        """Return the names of all servers that `server_of` may name now."""
        return self.topology.names()

    async def aclose(self) -> None:
        """End the lanes, and close the client if it is ours."""
        await self.topology.aclose()
        if self._own_client:
            await self.client.aclose()
            sentinels = getattr(getattr(self.client, "connection_pool", None), "sentinel_manager", None)
            if sentinels is not None:  # the master's client does not close them
                await sentinels.aclose()

    async def _readable(self, reply: Any, key: str, timeout: float) -> bytes | None:
        """Return the value of a GETEX, or of a plain GET where the server reads but does not write."""
        if isinstance(reply, RedisError) and writes_refused(reply):
            (reply,) = await self._send(("GET", key), timeout=timeout)
        return _value(reply)

    def _affinity(self, agent_id: str, fingerprint: str, ttl: float) -> Command:
        return ("SET", self.keys.affinity(agent_id), fingerprint, "PX", _ms(ttl))


_ms = milliseconds
_text = text
_checked = checked


def _value(reply: Any) -> bytes | None:
    if isinstance(reply, ResponseError) and error_code(reply) == "WRONGTYPE":
        raise WrongType
    value = _checked(reply)
    return value if value is None else bytes(value)


def _age(commit: Commit) -> int:
    return -1 if commit.age is None else int(commit.age * 1_000_000)


def _lease_arguments(lease: Lease | None) -> tuple[str, str]:
    return (f"{lease.token:020d}", lease.holder) if lease else (_NO_TOKEN, "")


def _lease(reply: Any, holder: str) -> Lease | Busy:
    status, detail = _text(reply[0]), reply[1]
    if status == "ok":
        return Lease(int(detail), holder)
    return Busy(max(0, int(detail)) / 1000, foreign=status == "foreign")


def _committed(reply: Any, waited: Replies) -> Committed:
    status = _text(reply[0])
    if status == "unstaged":
        raise failure_from(TimeoutError())
    replicas = None
    if waited:
        replicas = 0 if isinstance(waited[0], Exception) else int(waited[0])
    if status == "stale":
        return Committed(CommitOutcome.STALE, 0, replicas, exists=bool(reply[1]))
    return Committed(CommitOutcome(status), int(reply[1]) if len(reply) > 1 else 0, replicas)
