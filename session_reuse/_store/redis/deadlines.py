"""The index of deadlines: which sessions may have expired, by the servers' own clocks.

Each session has an entry with its earliest possible deadline. Restores do not change it, so that they stay one command.
The clean-up reads the entries that are due, and gives sessions that live their new deadlines. It changes an entry only if
its score is the one that it has read, so any number of clean-ups may run at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from session_reuse._resilience.failure import AttemptFailed
from session_reuse._store.keys import BUCKETS, Keys, decoded, encoded, is_name
from session_reuse._store.redis.failures import checked, failure_from
from session_reuse._store.redis.redis_py import Command, Send
from session_reuse._store.redis.scripts import call, milliseconds, text

_REMOVE: Final = "-1"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One entry of the index: its score is a server's unix time in milliseconds, as it stands there."""

    fingerprint: str
    score: str


@dataclass(slots=True)
class Due:
    """Entries whose deadline is over.

    Attributes:
        entries: oldest first within each bucket.
        overdue: seconds since the oldest deadline.
        more: whether there are more of them.
        failure: why some buckets could not be read, if so.
    """

    entries: list[IndexEntry] = field(default_factory=list)
    overdue: float = 0.0
    more: bool = False
    failure: AttemptFailed | None = None

    def add(self, reply: list[Any], limit: int) -> None:
        """Add the reply of one bucket: its clock, then members and scores in turns."""
        now, *found = reply
        members = zip(map(decoded, map(text, found[::2])), map(text, found[1::2]), strict=True)
        self.entries += [IndexEntry(name, score) for name, score in members if name is not None]
        self.overdue = max(self.overdue, (int(now) - float(found[1])) / 1000)
        self.more = self.more or len(found) == 2 * limit


class Deadlines:
    """The index of deadlines in the store."""

    def __init__(self, keys: Keys, send: Send) -> None:
        self._keys = keys
        self._send = send

    def enter(self, fingerprint: str, ttl: float) -> Command:
        """Return the command that enters a session. Its reply says whether it is new, and its score."""
        bucket = self._keys.of(fingerprint).deadlines
        return call("index", (bucket,), encoded(fingerprint), milliseconds(ttl))

    def leave(self, fingerprint: str) -> Command:
        """Return the command that removes a session with any deadline."""
        return ("ZREM", self._keys.of(fingerprint).deadlines, encoded(fingerprint))

    async def due(self, limit: int, *, timeout: float) -> Due:
        """Return due entries, at most `limit` entries of each bucket.

        Raises:
            AttemptFailed: no bucket could be read.
        """
        buckets = [self._keys.deadline_bucket(number) for number in range(BUCKETS)]
        commands = [call("due", (bucket,), limit) for bucket in buckets]
        due = Due()
        strangers: list[Command] = []
        for bucket, reply in zip(buckets, await self._send(*commands, timeout=timeout), strict=True):
            if isinstance(reply, Exception):
                due.failure = failure_from(reply)
            elif len(reply) > 1:
                due.add(reply, limit)
                strangers += [("ZREM", bucket, member) for member in reply[1::2] if decoded(text(member)) is None]
        if strangers:  # else they would be due at each pass
            await self._send(*strangers, timeout=timeout)
        return due

    async def entries(self, fingerprints: Iterable[str], *, timeout: float) -> dict[str, IndexEntry | None]:
        """Return the entries of these sessions, None for those without one. Entries that cannot be read are left out."""
        by_bucket: dict[str, list[str]] = {}
        for name in fingerprints:
            by_bucket.setdefault(self._keys.of(name).deadlines, []).append(name)
        commands = [("ZMSCORE", bucket, *map(encoded, names)) for bucket, names in by_bucket.items()]
        found: dict[str, IndexEntry | None] = {}
        for names, reply in zip(by_bucket.values(), await self._send(*commands, timeout=timeout), strict=True):
            if not isinstance(reply, Exception):
                scores = zip(names, reply, strict=True)
                found |= {name: None if score is None else IndexEntry(name, _score(score)) for name, score in scores}
        return found

    async def add(self, sessions: Iterable[tuple[str, float]], *, timeout: float) -> int:
        """Enter sessions with the seconds they have left, and return how many were entered."""
        replies = await self._send(*(self.enter(*session) for session in sessions), timeout=timeout)
        return sum(not isinstance(reply, Exception) for reply in replies)

    async def times_to_live(self, fingerprints: Sequence[str], *, timeout: float) -> list[int | None]:
        """Return PTTL of each session: milliseconds, -1 for no end, -2 for gone, None where it could not be asked."""
        commands = [("PTTL", self._keys.session(name)) for name in fingerprints]
        replies = await self._send(*commands, timeout=timeout)
        return [None if isinstance(reply, Exception) else int(reply) for reply in replies]

    async def settle(self, changes: Sequence[tuple[IndexEntry, int | None]], *, timeout: float) -> list[IndexEntry]:
        """Remove entries (None) or set the milliseconds they have left. Return those whose score was as given."""
        entries: dict[str, list[IndexEntry]] = {}
        arguments: dict[str, list[str]] = {}
        for entry, left in changes:
            bucket = self._keys.of(entry.fingerprint).deadlines
            entries.setdefault(bucket, []).append(entry)
            left_ms = _REMOVE if left is None else str(max(1, left))
            arguments.setdefault(bucket, []).extend((encoded(entry.fingerprint), entry.score, left_ms))
        commands = [call("settle", (bucket,), *words) for bucket, words in arguments.items()]
        settled: list[IndexEntry] = []
        for part, reply in zip(entries.values(), await self._send(*commands, timeout=timeout), strict=True):
            if not isinstance(reply, Exception):
                settled += [entry for entry, done in zip(part, reply, strict=True) if done]
        return settled

    async def forget_agents(self, fingerprints: Sequence[str], *, timeout: float) -> None:
        """Remove the affinity of the agents of sessions that are gone, where it still points to them.

        Raises:
            AttemptFailed: some could not be removed. They end by themselves, like the session.
        """
        keys = self._keys
        commands = [call("take_agents", (keys.session(name), keys.of(name).agents)) for name in fingerprints]
        replies = await self._send(*commands, timeout=timeout)
        agents = [
            command
            for name, reply in zip(fingerprints, replies, strict=True)
            for command in self.forget_affinities(reply if isinstance(reply, list) else (), name)
        ]
        for reply in [*replies, *(await self._send(*agents, timeout=timeout) if agents else ())]:
            checked(reply)

    def forget_affinities(self, agents: Iterable[bytes], fingerprint: str) -> list[Command]:
        """Return the commands for the agents of a session. What another program has listed there is left out."""
        return [self.forget_affinity(name, fingerprint) for name in map(text, agents) if is_name(name)]

    def forget_affinity(self, agent_id: str, fingerprint: str) -> Command:
        """Return the command that removes an affinity, if it still points to this session."""
        return call("forget_affinity", (self._keys.affinity(agent_id),), fingerprint)


def _score(reply: bytes | float) -> str:
    """Return a score as the server's scripts see it. redis-py returns a float where it can."""
    return text(reply) if isinstance(reply, bytes) else f"{reply:.0f}"
