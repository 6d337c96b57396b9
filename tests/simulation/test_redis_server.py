"""The simulated Redis gives the replies of a real one: on random commands, and on every script of the package."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from session_reuse._store.interface import CommitOutcome
from tests.harness.servers import RedisServer as RealServer
from tests.simulation.drawn_scripts import MEMBERS, NAMES, SHAPES, SORTED, Drawn, source_of
from tests.simulation.redis_server import RedisServer, ServerError, Status

CASES = 3000
FEW_CASES = 150
CASES_OF = {"commit": 600, "pool_take": 300}
KEYS = ("a", "b", "c", "d")
WORDS = ("", "x", "SRS1", "0", "7", "-3", "007", "1.5", "\0\1", "z" * 40)
NUMBERS = ("0", "1", "2", "5", "-1", "-2", "100", "x", "1.5")


@pytest.fixture(scope="module")
def real() -> Iterator[redis.Redis]:
    """A real server."""
    server = RealServer().start()
    client = server.client(protocol=2)
    yield client
    client.close()
    server.close()


class Pair:
    """A simulated server and a real one that get the same commands.

    Args:
        client: of the real one.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.client.flushall()
        self.client.script_flush()
        self.now = 0.0
        self.simulated = RedisServer(lambda: self.now)
        self.empty()

    def empty(self) -> None:
        """Empty both."""
        self.client.flushall()
        self.simulated.values.clear()
        self.simulated.expires.clear()
        self.set_clock()

    def set_clock(self) -> None:
        """Set the simulated clock, which stands still until the next call, by the real one.

        So nothing ends in the simulated server because this machine was busy, and what ends in the real one is known.
        """
        seconds, micros = self.client.time()
        self.now = seconds + micros / 1e6

    def check(self, *command: Any) -> Any:
        """Execute a command on both, compare, and return the reply."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        mine = plain(self.simulated.execute(words))
        try:
            theirs = plain(raw(self.client, words))
        except RedisError as error:
            theirs = plain(error)
        assert alike(mine, theirs), f"{words}: simulated {mine!r}, real {theirs!r}"
        return mine

    def check_all_keys(self) -> None:
        """Compare what the servers hold, but for what may have ended in the real one since the clock was set."""
        for key in sorted(set(self.client.keys()) | set(self.simulated.values)):
            if 0 <= plain(self.simulated.execute([b"PTTL", key])) < _MAY_HAVE_ENDED:
                continue
            kind = self.check("TYPE", key)
            read = {b"string": ("GET", key), b"set": ("SMEMBERS", key), b"zset": ("ZRANGE", key, 0, -1, "WITHSCORES"),
                    b"hash": ("HGETALL", key), b"none": ("EXISTS", key)}  # fmt: skip
            self.check(*read[kind])
            self.check("PTTL", key)


def raw(client: redis.Redis, words: list[bytes]) -> Any:
    """Send words and return the reply unchanged."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_command(*words))
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def plain(reply: Any) -> Any:
    """Return a reply in the form that both have."""
    if isinstance(reply, ServerError):
        return f"error {str(reply).split()[0]}"
    if isinstance(reply, Exception):
        name = {"NoScriptError": "NOSCRIPT", "OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY"}.get(
            type(reply).__name__
        )
        of_6_2 = r"(?<=: -)[A-Z]{3,}\b|(?<=: )WRONGTYPE\b"
        first = re.match(r"[A-Z]{3,}\b", str(reply)) or re.search(of_6_2, str(reply))
        return f"error {name or (first.group() if first else 'ERR')}"
    if isinstance(reply, Status):
        return bytes(reply)
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return reply.encode() if isinstance(reply, str) else reply


_TIMES = re.compile(rb"(?<!\d)\d{10,20}(?!\d)")


_BUSY = 10_000
"""Milliseconds that may pass between the two servers' work on one case. No time to live in a case is near to it."""
_MAY_HAVE_ENDED = 2 * _BUSY
_STAMP = slice(130, 144)
"""Where a commit writes the server's time into a value."""
_TOKEN = slice(36, 56)
"""Where the script for a lease does."""


def _are_near(one: bytes, two: bytes) -> bool:
    return abs(int(one) - int(two)) < 1000 * _BUSY


def alike(mine: Any, theirs: Any) -> bool:
    """Return whether replies are the same. Times may differ by what passed between the two."""
    if isinstance(mine, list) and isinstance(theirs, list):
        same_length = len(mine) == len(theirs)
        return same_length and (all(map(alike, mine, theirs)) or sorted(map(repr, mine)) == sorted(map(repr, theirs)))
    if isinstance(mine, int) and isinstance(theirs, int):
        return mine == theirs or (abs(mine - theirs) < _BUSY and min(mine, theirs) > 10)
    if isinstance(mine, bytes) and isinstance(theirs, bytes) and mine != theirs:
        if len(mine) == len(theirs) > _STAMP.stop and mine[_STAMP].isdigit() and theirs[_STAMP].isdigit():
            mine, theirs = mine[:130] + mine[144:], theirs[:130] + theirs[144:]
        if mine[:4] == theirs[:4] == b"SRS1" and mine[_TOKEN].isdigit() and theirs[_TOKEN].isdigit():
            if not _are_near(mine[_TOKEN], theirs[_TOKEN]):
                return False
            mine, theirs = mine[:36] + mine[56:], theirs[:36] + theirs[56:]
        one, two = _TIMES.findall(mine), _TIMES.findall(theirs)
        near = len(one) == len(two) and all(map(_are_near, one, two))
        return near and _TIMES.sub(b"", mine) == _TIMES.sub(b"", theirs)
    return bool(mine == theirs)


def drawn_command(chance: random.Random) -> tuple[Any, ...]:
    """Draw one command."""
    key, other = chance.choice(KEYS), chance.choice(KEYS)
    word, number, second = chance.choice(WORDS), chance.choice(NUMBERS), chance.choice(NUMBERS)
    score = chance.choice(("1", "2", "10", "2.5", "1700000000000"))
    seconds = chance.choice(("100", "500", "0", "-1", "x", "1.5"))
    return chance.choice((
        ("GET", key), ("SET", key, word), ("SET", key, word, "PX", 60_000), ("SET", key, word, "NX"), ("SET", key, word, "XX", "GET"),
        ("SET", key, word, "KEEPTTL"), ("SET", key, word, "EX", seconds), ("GETEX", key, "PX", 70_000), ("GETEX", key), ("GETEX", key, "PERSIST"),
        ("DEL", key), ("DEL", key, other), ("EXISTS", key, other), ("TYPE", key), ("STRLEN", key), ("GETRANGE", key, number, second),
        ("SETRANGE", key, chance.choice(("0", "3", "20")), word), ("RENAME", key, other), ("PEXPIRE", key, 50_000), ("EXPIRE", key, 100), ("PEXPIRE", key, 0),
        ("PTTL", key), ("TTL", key), ("PERSIST", key),
        ("SADD", key, word, number), ("SREM", key, word), ("SMEMBERS", key), ("SCARD", key), ("SISMEMBER", key, word),
        ("ZADD", key, score, word), ("ZADD", key, chance.choice(("GT", "LT", "NX", "XX")), score, word), ("ZADD", key, "CH", score, word),
        ("ZREM", key, word), ("ZSCORE", key, word), ("ZMSCORE", key, word, number), ("ZCARD", key), ("ZRANGE", key, number, second),
        ("ZRANGE", key, 0, -1, "WITHSCORES"), ("ZRANGEBYSCORE", key, "-inf", score, "WITHSCORES", "LIMIT", 0, 2), ("ZRANGEBYSCORE", key, "(1", "+inf"),
        ("ZCOUNT", key, "-inf", "+inf"), ("ZREMRANGEBYSCORE", key, "-inf", score), ("ZREMRANGEBYRANK", key, 0, number),
        ("HSET", key, word, number), ("HGET", key, word), ("HMGET", key, word, number), ("HGETALL", key), ("HDEL", key, word), ("HLEN", key),
        ("HINCRBY", key, word, number), ("INCR", key), ("INCRBY", key, number), ("APPEND", key, word), ("MGET", key, other), ("GETDEL", key),
        ("PEXPIREAT", key, 4_000_000_000_000), ("GET",),
    ))  # fmt: skip


@pytest.mark.redis
@pytest.mark.parametrize("seed", range(3))
def test_random_commands_get_the_replies_of_a_real_server(real: redis.Redis, seed: int) -> None:
    """Strings, sets, hashes, sorted sets, times to live, errors."""
    pair, chance = Pair(real), random.Random(seed)
    for _ in range(CASES // 3):
        pair.set_clock()
        pair.check(*drawn_command(chance))
    pair.check_all_keys()


EXPECTED: dict[str, set[str]] = {
    "acquire": {"ok", "busy", "foreign"},
    "commit": set(re.findall(r"[a-z]+", re.search(r"-- Outcomes: (.*)", source_of("commit")).group(1))),  # type: ignore[union-attr]
    "count_use": {"-1"},
    "forget_affinity": {"0", "1"},
    "index": {"0", "1"},
    "invalidate": {"0", "1"},
    "note_liveness": {"OK"},
    "pool_edit": {"0", "1", "2"},
    "pool_return": {"0", "1"},
    "pool_take": {"", *MEMBERS},
    "release": {"0", "1"},
    "renew": {"0", "1"},
    "reseal_affinity": {"0", "1"},
    "set_totp": {"0", "1"},
    "settle": {"0", "1"},
    "slide": {"0", "1"},
    "take_agents": {"[]", *SORTED["agents"]},
}
"""Script -> the replies, or the first words of replies, that have to occur."""


def first_word(reply: Any) -> str:
    """Return what a reply begins with."""
    if isinstance(reply, list):
        return first_word(reply[0]) if reply else "[]"
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def test_each_script_has_a_shape() -> None:
    """The calls of a script without one would be senseless, and end at its first comparison."""
    assert sorted(SHAPES) == NAMES
    assert EXPECTED["commit"] == {*CommitOutcome, "unstaged"}


@pytest.mark.redis
@pytest.mark.parametrize("name", NAMES)
def test_each_script_does_what_it_does_in_a_real_server(real: redis.Redis, name: str) -> None:
    """Random keys and arguments, some of them senseless, also with a full memory. Each line and each outcome occurs."""
    pair, drawn = Pair(real), Drawn(random.Random(name))
    sha = pair.check("SCRIPT", "LOAD", source_of(name))
    replies: Counter[str] = Counter()

    def run() -> None:
        for number in range(CASES_OF.get(name, FEW_CASES)):
            replies[first_word(called(pair, sha, *drawn.case(name), full=number % 9 == 8))] += 1

    text = f"{source_of(name)}\nend".splitlines()
    passed_over = {line: text[line - 1] for line in sorted(pair.simulated.lines_not_run(run))}
    assert [code for code in passed_over.values() if code.strip() != "end"] == [], replies
    assert EXPECTED.get(name, set()) <= set(replies), replies


def called(pair: Pair, sha: bytes, plants: list[tuple[Any, ...] | None], arguments: list[Any], *, full: bool) -> Any:
    """Call a script on both servers with what stands under its keys, and return the reply."""
    pair.empty()
    keys = [f"{{s}}{letter}" for letter in string.ascii_lowercase[: len(plants)]]
    for key, plant in zip(keys, plants, strict=True):
        if plant is not None:
            pair.check(plant[0], key, *plant[1:])
    if full:
        pair.client.config_set("maxmemory", 1)
        pair.simulated.full = True
    try:
        return pair.check("EVALSHA", sha, len(keys), *keys, *arguments)
    finally:
        if full:
            pair.client.config_set("maxmemory", 0)
            pair.simulated.full = False
        pair.check_all_keys()
