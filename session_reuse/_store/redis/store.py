"""Sessions in Redis: one round trip to enter, one to leave. Payloads do not pass through Lua.

The same code serves standalone servers, Sentinel and Cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisError, ResponseError

from session_reuse._resilience.failure import AttemptFailed
from session_reuse._state.header import TTL_UNIT
from session_reuse._store.interface import (
    Busy,
    Commit,
    CommitOutcome,
    CommitReply,
    EnterReply,
    Lease,
    ReadReply,
    SessionEntry,
    SessionUse,
)
from session_reuse._store.keys import Keys, SessionKeys
from session_reuse._store.redis.audit import PAGE, line_of, page_of, uses_of
from session_reuse._store.redis.deadlines import Deadlines, IndexEntry
from session_reuse._store.redis.failures import checked, error_code, failure_from, writes_refused
from session_reuse._store.redis.listing import facts_of, fingerprints, keys_like, list_sessions, listed_from
from session_reuse._store.redis.pools import Pools
from session_reuse._store.redis.redis_py import Argument, Command, Replies
from session_reuse._store.redis.scripts import call, milliseconds, text, with_source
from session_reuse._store.redis.topology import topology_of

_NO_TOKEN: Final = "0" * 20
_STAGING_MS: Final = 60_000
_PERHAPS_NOT_INDEXED: Final = frozenset({CommitOutcome.RECREATED, CommitOutcome.RECOVERED})
"""Outcomes that tell of an expiry or a fail-over, in which the index may have lost the session."""
_ROUTINE: Final = frozenset({CommitOutcome.SAVED, CommitOutcome.UNCHANGED, CommitOutcome.DUPLICATE})


class RedisStore(Pools):
    """Sessions over an asyncio redis-py client.

    Each request takes the seconds for one attempt, and raises `AttemptFailed` when the store does not do it in time.

    Args:
        client: `redis.asyncio.Redis`, `RedisCluster`, or a double of them, without `decode_responses`.
        keys: the names.
        lanes: connections for small values.
        wait: replicas to wait for after each save, and for how many seconds. 0 for none.
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
        self.server_of = self.topology.server_of
        self.deadlines = Deadlines(keys, self.send)
        self._loaded: set[Argument] = set()
        self._wait = wait
        self._own_client = own_client

    async def send(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands in one write to each server, and return their replies.

        Errors of single commands stand in their place: look at each with `checked`. A script is sent with its source until
        it was answered once.

        Raises:
            AttemptFailed: nothing came through.
        """
        new = [one[1] for one in commands if one[0] == "EVALSHA" and one[1] not in self._loaded]
        if new:
            commands = tuple(with_source(one) if one[0] == "EVALSHA" and one[1] in new else one for one in commands)
        try:
            replies = await self.topology.execute(*commands, timeout=timeout, size=size)
            if NoScriptError in map(type, replies):  # what was done is not done twice
                missed = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                again = [with_source(commands[place]) for place in missed]
                if commands[-1][0] == "WAIT":
                    missed.append(len(commands) - 1)
                    again.append(commands[-1])
                answers = await self.topology.execute(*again, timeout=timeout, size=size)
                for place, reply in zip(missed, answers, strict=True):
                    replies[place] = reply
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see failures.py)
            raise failure_from(error) from None
        self._loaded.update(new)
        return replies

    async def enter(
        self, fingerprint: str, *, ttl: float | None, timeout: float, lease: tuple[str, float] | None = None,
        use_id: str = "", ceiling: bool = False, timed: bool = False,
    ) -> EnterReply:  # fmt: skip
        """Read a session and start its time to live again.

        Args:
            fingerprint: whose session.
            ttl: seconds. None leaves the time to live alone.
            timeout: seconds for the attempt.
            lease: holder and seconds, to take the lease as well.
            use_id: names this reuse, to count it once. Empty to count none.
            ceiling: whether sessions may retire before their time to live is over, which costs one command more.
            timed: whether to ask for the server's time and the last invalidation, likewise.
        """
        keys = self.keys.of(fingerprint)
        read: Command = ("GETEX", keys.session, "PX", milliseconds(ttl or 0))
        if ttl is None or ceiling:
            read = ("GET", keys.session)
        commands: list[Command] = []
        if lease is not None:
            commands.append(self._acquire(keys, *lease))
        if use_id:
            names = (keys.session, keys.once(use_id), keys.lease)
            commands.append(call("count_use", names, lease[0] if lease else ""))
        if ttl is not None and ceiling:
            commands.append(call("slide", (keys.session,), milliseconds(ttl)))
        if timed:
            commands.append(call("look", (keys.tombstone,)))
        *answers, value = await self.send(*commands, read, timeout=timeout)  # the lease first, then what it covers
        held = _lease(checked(answers.pop(0)), lease[0]) if lease is not None else None
        counted = answers.pop(0) if use_id else None
        if isinstance(counted, RedisError) and writes_refused(counted):
            counted = None  # a server that is full reads, and counts nothing
        uses = int(checked(counted)) if counted is not None else None
        reply = await self._entered(keys, value, timeout, held, uses)
        if timed and isinstance(answers[-1], list):
            now, invalidated_at = answers[-1]
            reply = replace(reply, now=int(now), invalidated_at=int(invalidated_at))
        return reply

    async def _entered(
        self, keys: SessionKeys, reply: object, timeout: float, lease: Lease | Busy | None = None, uses: int | None = None
    ) -> EnterReply:  # fmt: skip
        """Return the reply. Without a value with the last invalidation, so that a first save is not older than it looks."""
        if isinstance(reply, RedisError) and writes_refused(reply):  # a replica reads, but refuses a GETEX
            (reply,) = await self.send(("GET", keys.session), timeout=timeout)
        value = _value(reply)
        if value is not None:
            return EnterReply(value, lease, uses)
        invalidated_at: int | None = None
        with suppress(AttemptFailed):
            (look,) = await self.send(call("look", (keys.tombstone,)), timeout=timeout)
            invalidated_at = int(checked(look)[1])
        return EnterReply(None, lease, uses, invalidated_at)

    async def slide(self, fingerprint: str, ttl: float, *, timeout: float) -> None:
        """Start the time to live again within the limits that the session itself sets."""
        command = call("slide", (self.keys.session(fingerprint),), milliseconds(ttl))
        checked((await self.send(command, timeout=timeout))[0])

    async def read(self, fingerprint: str, *, timeout: float) -> ReadReply:
        """Read a session and leave its time to live alone."""
        keys = self.keys.of(fingerprint)
        look, value = await self.send(
            call("look", (keys.tombstone,)), ("GET", keys.session), timeout=timeout
        )  # fmt: skip
        now, invalidated_at = checked(look)
        return ReadReply(_value(value), int(invalidated_at), int(now))

    async def commit(self, commit: Commit, *, timeout: float) -> CommitReply:
        """Save, if the store holds what the commit expects, in one write together with index and affinity.

        The payload is staged by a native SET and committed by a script.
        """
        fingerprint, keys = commit.fingerprint, self.keys.of(commit.fingerprint)
        staging = keys.staging(commit.save_id)
        commands: list[Command] = []
        if not commit.indexed:
            commands.append(self.deadlines.enter(fingerprint, commit.ttl))
        ms = milliseconds(commit.ttl) if commit.ttl else 0
        commands += [("SET", self.keys.affinity(agent), value, "PX", ms) for agent, value in commit.agents if ms]
        first_line = len(commands)
        if commit.uses:
            commands += [line_of(self.keys.audit, *use) for use in commit.uses]
        if commit.value:
            commands.append(("SET", staging, commit.value, "PX", _STAGING_MS))
        position = len(commands)
        commands.append(self._commit_script(commit, keys, staging, ms))
        size = len(commit.value)
        if self._wait[0]:
            commands.append(("WAIT", self._wait[0], milliseconds(self._wait[1])))
            timeout += self._wait[1]  # the server may hold the reply for so long
        replies = await self.send(*commands, timeout=timeout, size=size)
        if commit.value:
            checked(replies[position - 1])
        reply = _commit_reply(checked(replies[position]), replies[position + 1 :])
        if commit.uses:
            for line in replies[first_line : first_line + len(commit.uses)]:
                if isinstance(line, Exception):
                    reply = replace(reply, audit_error=failure_from(line).code)
        if reply.outcome not in _ROUTINE or not commit.indexed:
            await self._follow_up(commit, reply, None if commit.indexed else replies[0], timeout)
        return reply

    async def _follow_up(self, commit: Commit, reply: CommitReply, indexed: object, timeout: float) -> None:
        """Correct the index and the affinity after a rare outcome. The clean-up corrects the rest."""
        outcome, commands = reply.outcome, []
        if outcome.written and (isinstance(indexed, Exception) or outcome in _PERHAPS_NOT_INDEXED):
            commands.append(self.deadlines.enter(commit.fingerprint, commit.ttl))
        elif outcome is CommitOutcome.STALE:
            commands += [self.deadlines.forget_affinity(agent, commit.fingerprint) for agent, _ in commit.agents]
        with suppress(AttemptFailed):
            if outcome is CommitOutcome.STALE:
                (exists,) = await self.send(("EXISTS", self.keys.session(commit.fingerprint)), timeout=timeout)
                # A session that exists keeps its entry and its affinity.
                if exists != 0:
                    return
                if isinstance(indexed, list) and indexed[0]:
                    mine = IndexEntry(commit.fingerprint, text(indexed[1]))
                    await self.deadlines.settle([(mine, None)], timeout=timeout)
            if commands:
                await self.send(*commands, timeout=timeout)

    def _commit_script(self, commit: Commit, keys: SessionKeys, staging: str, ttl: int) -> Command:
        names = [keys.session, staging, keys.lease, keys.tombstone, keys.agents, keys.quarantine]
        if commit.score_change or commit.lease is not None:
            names.append(keys.once(commit.mark_id or commit.save_id))
        if commit.lease is not None:
            names.append(keys.once(commit.lease.holder))
        return call(
            "commit", tuple(names), commit.precondition.value, commit.known, f"{commit.invalidated_at:020d}", commit.save_id,
            *_lease_arguments(commit.lease), int(commit.release), int(commit.may_recreate), ttl,
            int(commit.new_login), commit.score_change, f"{commit.created_at:014d}", round(commit.age * 1000),
            *[agent for agent, _ in commit.agents],
        )  # fmt: skip

    async def acquire(self, fingerprint: str, holder: str, ttl: float, *, timeout: float) -> Lease | Busy:
        """Take the lease alone."""
        (reply,) = await self.send(self._acquire(self.keys.of(fingerprint), holder, ttl), timeout=timeout)
        return _lease(checked(reply), holder)

    def _acquire(self, keys: SessionKeys, holder: str, ttl: float) -> Command:
        names = (keys.session, keys.lease, keys.tombstone, keys.once(holder))
        return call("acquire", names, holder, milliseconds(ttl))

    async def renew(self, fingerprint: str, lease: Lease, ttl: float, *, timeout: float) -> bool:
        """Prolong a lease. False when another holder has it."""
        names = (self.keys.of(fingerprint).lease,)
        (reply,) = await self.send(call("renew", names, *_lease_arguments(lease), milliseconds(ttl)), timeout=timeout)
        return bool(checked(reply))

    async def release(self, fingerprint: str, lease: Lease, *, timeout: float) -> bool:
        """Release a lease, and refuse late requests for it. False when another holder has it."""
        keys = self.keys.of(fingerprint)
        names = (keys.lease, keys.once(lease.holder), keys.session)
        (reply,) = await self.send(call("release", names, lease.holder), timeout=timeout)
        return bool(checked(reply))

    async def invalidate(
        self, fingerprint: str, *, ttl: float, request_id: str, timeout: float, created_at: int = 0
    ) -> bool:
        """Delete a session, its lease and its agents' affinity. Refuse late saves for `ttl` seconds. Return whether it existed.

        Args:
            fingerprint: whose session.
            ttl: seconds.
            request_id: names the request, to carry it out once.
            timeout: seconds for the attempt.
            created_at: of the session that is meant, unix milliseconds. 0 for whichever is stored.
        """
        keys = self.keys.of(fingerprint)
        names = (keys.session, keys.lease, keys.tombstone, keys.agents, keys.quarantine)
        # First the index: a new login that comes right after the script enters itself, and must stay in.
        checked((await self.send(self.deadlines.leave(fingerprint), timeout=timeout))[0])
        lineage = f"{created_at:014d}" if created_at else ""
        (reply,) = await self.send(call("invalidate", names, milliseconds(ttl), request_id, lineage), timeout=timeout)
        existed, agents = checked(reply)
        if forget := self.deadlines.forget_affinities(agents, fingerprint):
            with suppress(AttemptFailed):  # a hint, which expires
                await self.send(*forget, timeout=timeout)
        return bool(existed)

    async def affinity(self, agent_id: str, *, timeout: float) -> str | None:
        """Return the affinity entry of an agent."""
        (reply,) = await self.send(("GET", self.keys.affinity(agent_id)), timeout=timeout)
        value = _value(reply)
        return text(value) if value else None

    async def reseal_affinities(self, reseal: Callable[[str, str], str | None], *, timeout: float) -> int:
        """Replace the affinity entries for which `reseal(agent_id, entry)` returns another one. Return how many."""
        count = 0
        async for page in keys_like(self.topology, self.keys.pattern("affinity"), timeout):
            names = list(map(text, page))
            entries = await self.send(*(("GET", name) for name in names), timeout=timeout) if names else []
            commands = []
            for name, entry in zip(names, entries, strict=True):
                new = reseal(self.keys.agent_of(name), text(entry)) if isinstance(entry, bytes) else None
                if new is not None and new.encode() != entry:
                    commands.append(call("reseal_affinity", (name,), entry, new))
            for reply in await self.send(*commands, timeout=timeout) if commands else []:
                count += checked(reply)
        return count

    def sessions(self, *, timeout: float) -> AsyncIterator[SessionEntry]:
        """List the sessions by cursor, over all primaries of a Cluster. May return one twice, misses none that stays."""
        return list_sessions(self.topology, self.send, self.keys, timeout)

    async def facts(self, fingerprint: str, *, timeout: float) -> SessionEntry | None:
        """Return what a listing shows of one session. None when there is none."""
        (reply,) = await self.send(facts_of(self.keys, fingerprint), timeout=timeout)
        return listed_from(fingerprint, reply)

    async def note_liveness(
        self, fingerprint: str, verdict: str, created_at: int, ttl: float, *, timeout: float
    ) -> None:
        """Keep what a probe has found out about the login of this creation, unix milliseconds, for `ttl` seconds."""
        names = (self.keys.of(fingerprint).liveness,)
        command = call("note_liveness", names, verdict, created_at, milliseconds(ttl))
        checked((await self.send(command, timeout=timeout))[0])

    async def totp_secret(self, fingerprint: str, *, timeout: float) -> tuple[bytes | None, int]:
        """Return the sealed secret of a session's one-time codes, and the server time in µs."""
        keys = self.keys.of(fingerprint)
        look, value = await self.send(call("look", (keys.tombstone,)), ("GET", keys.totp), timeout=timeout)
        return _value(value), int(checked(look)[0])

    async def set_totp_secret(
        self, fingerprint: str, value: bytes, known: bytes | None = None, *, timeout: float
    ) -> bool:
        """Keep a sealed secret, or with an empty value none. Return whether that was done.

        Args:
            fingerprint: whose session.
            value: the sealed secret.
            known: what must be there, to replace it. None for anything.
            timeout: seconds for the attempt.
        """
        arguments = (value,) if known is None else (value, known)
        (reply,) = await self.send(call("set_totp", (self.keys.of(fingerprint).totp,), *arguments), timeout=timeout)
        return bool(checked(reply))

    async def totp_secrets(self, *, timeout: float) -> list[str]:
        """Return the fingerprints that have a secret."""
        pages = keys_like(self.topology, self.keys.pattern("totp"), timeout)
        names = {self.keys.fingerprint_of(text(key)) async for page in pages for key in page}
        return sorted(name for name in names if name is not None)

    async def add_uses(self, uses: Sequence[tuple[SessionUse, float]], *, timeout: float) -> None:
        """Append lines to the audit."""
        for reply in await self.send(*(line_of(self.keys.audit, *use) for use in uses), timeout=timeout):
            checked(reply)

    async def uses(self, before: str, *, timeout: float) -> tuple[list[SessionUse], str]:
        """Return a page of the audit, the newest line first, and the place of the next page. Empty after the last.

        Args:
            before: the place of the page. Empty for the newest.
            timeout: seconds for the attempt.
        """
        (reply,) = await self.send(page_of(self.keys.audit, before), timeout=timeout)
        lines = checked(reply, self.keys.audit)
        return uses_of(lines), text(lines[-1][0]) if len(lines) == PAGE else ""

    def fingerprints(self, *, timeout: float) -> AsyncIterator[list[str]]:
        """Yield the fingerprints of all sessions in pages, by cursor."""
        return fingerprints(self.topology, self.keys, timeout)

    def servers(self) -> Collection[str]:
        """Return the names of all servers that `server_of` may name now."""
        return self.topology.names()

    async def aclose(self) -> None:
        """End the lanes, and close the client if it is ours.

        Raises:
            ConnectionError: a server does not answer the end of a TLS connection. Its socket is closed all the same.
        """
        await self.topology.aclose()
        if not self._own_client:
            return
        sentinels = getattr(getattr(self.client, "connection_pool", None), "sentinel_manager", None)
        try:
            await self.client.aclose()
            # The master's client does not close them, and redis-py 8.0 has no call for all of them.
            await asyncio.gather(*(sentinel.aclose() for sentinel in getattr(sentinels, "sentinels", ())))
        except RedisError as error:
            raise ConnectionError(str(error)) from error


def _value(reply: object) -> bytes | None:
    if isinstance(reply, ResponseError) and error_code(reply) == "WRONGTYPE":
        return b""  # no session of ours: as good as an empty one
    value = checked(reply)
    if value is not None and not isinstance(value, bytes):  # not `bytes(value)`: of a number it makes so many zeros
        raise TypeError(type(value).__name__)
    return value


def _lease_arguments(lease: Lease | None) -> tuple[str, str]:
    return (f"{lease.token:020d}", lease.holder) if lease else (_NO_TOKEN, "")


def _lease(reply: Any, holder: str) -> Lease | Busy:
    status, detail = text(reply[0]), reply[1]
    if status == "ok":
        return Lease(int(detail), holder)
    return Busy(max(0, int(detail)) / 1000, foreign=status == "foreign")


def _commit_reply(reply: Any, waited: Replies) -> CommitReply:
    outcome, invalidated_at, uses, score, saved_at, ttl = reply
    if outcome == b"unstaged":
        # The payload was no longer staged when the script ran: it is sent again, as after no answer.
        raise failure_from(TimeoutError())
    replicas = None
    if waited:
        replicas = 0 if isinstance(waited[0], Exception) else int(waited[0])
    return CommitReply(
        CommitOutcome(text(outcome)), int(invalidated_at), int(uses), int(score), int(saved_at),
        int(ttl.strip() or b"0", 16) * TTL_UNIT, replicas,
    )  # fmt: skip
