"""A small Redis in memory that runs the real Lua scripts, on its own clock.

Commands arrive as tuples of bytes and are executed one after another. What is not known here raises
`UnknownCommandError`, so that a command that the client begins to use is noticed at once. `test_redis_server.py` runs
random commands and every script of the package against this and a real redis-server.
"""

from __future__ import annotations

import bisect
import fnmatch
import re
from collections.abc import Callable, Iterable
from hashlib import sha1
from typing import Any, Final

import lupa.lua51

Key = bytes
Undo = tuple[float, Key, Any, "float | None"]


class UnknownCommandError(Exception):
    """The client sends something that this server was not taught."""


class ServerError(Exception):
    """An error reply. Its text starts with the code."""


class Status(bytes):
    """A simple string reply such as OK."""

    __slots__ = ()


OK: Final = Status(b"OK")
_WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
_SYNTAX: Final = "ERR syntax error"
_NOT_INTEGER: Final = "ERR value is not an integer or out of range"
_OOM: Final = "OOM command not allowed when used memory > 'maxmemory'."
_READ_ONLY: Final = "READONLY You can't write against a read only replica."

_Handler = Callable[["RedisServer", list[bytes]], Any]
_COMMANDS: dict[bytes, tuple[_Handler, bool, bool]] = {}
"""Name -> function, whether it writes, whether it is refused when memory is full."""


def _command(name: str, *, writes: bool = False, grows: bool = False) -> Callable[[_Handler], _Handler]:
    def register(function: _Handler) -> _Handler:
        _COMMANDS[name.encode()] = function, writes, grows
        return function

    return register


class RedisServer:
    """One server.

    Args:
        clock: returns the server's unix time in seconds.

    Attributes:
        values: stored values, by key.
        expires: unix milliseconds at which keys end.
        full: whether memory is full, read_only: whether it is a replica.
        loading: whether it is starting.
        on_change: called with (keys changed) after each command that changed any, before anything else happens.
        undo: what each change replaced, oldest first, for a fail-over that loses the last of them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.values: dict[Key, Any] = {}
        self.expires: dict[Key, float] = {}
        self.full = self.read_only = self.loading = False
        self.forbidden: frozenset[bytes] = frozenset()
        self.undo: list[Undo] = []
        self.touched: dict[Key, None] = {}
        self.deleted_by: Callable[[Key, str], None] = lambda _key, _how: None
        self._full_now = False
        self.scripts: set[str] = set()

    # Execution ----------------------------------------------------------------------------------------------------------

    def execute(self, command: Iterable[bytes]) -> Any:
        """Execute one command. An error is returned as a ServerError."""
        words = list(command)
        name = words[0].upper()
        self._full_now = self.full
        try:
            return self._call(name, words[1:])
        except ServerError as error:
            return error

    def _call(self, name: bytes, words: list[bytes]) -> Any:
        if self.loading:
            raise ServerError("LOADING Redis is loading the dataset in memory")
        found = _COMMANDS.get(name)
        if found is None:
            raise UnknownCommandError(name.decode("ascii", "replace"))
        function, writes, grows = found
        if name in self.forbidden:
            raise ServerError(f"NOPERM this user has no permissions to run the '{name.decode().lower()}' command")
        if writes and self.read_only:
            raise ServerError(_READ_ONLY)
        if grows and self._full_now:
            raise ServerError(_OOM)
        if writes:
            self._full_now = False  # a script that has begun to write may go on writing
        try:
            return function(self, words)
        except IndexError:
            raise ServerError(f"ERR wrong number of arguments for '{name.decode().lower()}' command") from None

    @property
    def now(self) -> float:
        """Unix milliseconds."""
        return self.clock() * 1000

    def live(self, key: Key) -> Any:
        """Return the value of a key, None when there is none any more."""
        value = self.values.get(key)
        if value is not None and key in self.expires and self.expires[key] <= self.now:
            self.note(key)
            del self.values[key], self.expires[key]
            self.deleted_by(key, "expired")
            return None
        return value

    def note(self, key: Key) -> None:
        """Remember what a key holds before it is changed."""
        value = self.values.get(key)
        if value is not None and type(value) is not bytes:
            value = value.copy()
        self.undo.append((self.clock(), key, value, self.expires.get(key)))
        self.touched[key] = None

    def typed(self, key: Key, kind: type, *, make: bool = False) -> Any:
        """Return the value of a key that must be of a type."""
        value = self.live(key)
        if value is None:
            if not make:
                return None
            value = kind()
            self.values[key] = value
            return value
        if type(value) is not kind:
            raise ServerError(_WRONG_TYPE)
        return value

    def put(self, key: Key, value: Any, expires: float | None) -> None:
        """Set a key."""
        self.live(key)
        self.note(key)
        self.values[key] = value
        if expires is None:
            self.expires.pop(key, None)
        else:
            self.expires[key] = expires

    def remove(self, key: Key, how: str = "deleted") -> bool:
        """Delete a key. Return whether there was one."""
        if self.live(key) is None:
            return False
        self.note(key)
        del self.values[key]
        self.expires.pop(key, None)
        self.deleted_by(key, how)
        return True

    def drop_if_empty(self, key: Key) -> None:
        """Delete a collection that holds nothing."""
        if not self.values.get(key):
            self.values.pop(key, None)
            self.expires.pop(key, None)

    # What happens to servers ---------------------------------------------------------------------------------------------

    def lose(self, seconds: float) -> None:
        """Undo all changes of the last seconds: a replica that had not heard of them takes over."""
        since = self.clock() - seconds
        while self.undo and self.undo[-1][0] > since:
            _, key, value, expires = self.undo.pop()
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
            if expires is None:
                self.expires.pop(key, None)
            else:
                self.expires[key] = expires
            self.touched[key] = None
        self.scripts.clear()

    def forget_all(self) -> None:
        """Start again without data."""
        for key in self.values:
            self.touched[key] = None
        self.values.clear()
        self.expires.clear()
        self.undo.clear()
        self.scripts.clear()

    def forget_scripts(self) -> None:
        """Forget the scripts, as SCRIPT FLUSH and every restart do."""
        self.scripts.clear()

    # Scripts --------------------------------------------------------------------------------------------------------------

    @staticmethod
    def lines_not_run(work: Callable[[], None]) -> set[int]:
        """Do some work and return the lines of the scripts it ran that were passed over each time."""
        return _LUA.lines_not_run(work)

    def script(self, sha: str, keys: list[bytes], arguments: list[bytes]) -> Any:
        """Run a script that is loaded."""
        return _LUA.run(self, sha, keys, arguments)


_WATCH: Final = b"""
local debug = debug
local function watch(ran, all)
  if not ran then return debug.sethook() end
  local seen = {}
  debug.sethook(function(_, line)
    local info = debug.getinfo(2, 'SfL')
    if info.what == 'C' or info.func == watch then return end
    ran[line] = true
    if not seen[info.func] then
      seen[info.func] = true
      for each in pairs(info.activelines) do all[each] = true end
    end
  end, 'l')
end
return watch
"""
"""Notes which lines run, and which lines there are in what runs."""


class _Lua:
    """One Lua for all servers: scripts have no state."""

    def __init__(self) -> None:
        self._functions: dict[str, Any] = {}
        self._server: RedisServer | None = None
        self._runtime = lupa.lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
        self._table = self._runtime.table
        redis = self._table()
        redis[b"call"] = self._call
        redis[b"pcall"] = self._pcall
        redis[b"error_reply"] = self._error
        redis[b"status_reply"] = self._status
        redis[b"sha1hex"] = lambda text=b"": sha1(text, usedforsecurity=False).hexdigest().encode()
        redis[b"log"] = lambda *_: None
        for level, name in enumerate((b"LOG_DEBUG", b"LOG_VERBOSE", b"LOG_NOTICE", b"LOG_WARNING")):
            redis[name] = level
        self._watch = self._runtime.execute(_WATCH)
        names = self._runtime.globals()
        names[b"redis"] = redis
        for name in (b"python", b"os", b"io", b"require", b"package", b"debug", b"dofile", b"loadfile"):
            names[name] = None

    def load(self, source: bytes) -> str:
        sha = sha1(source, usedforsecurity=False).hexdigest()
        if sha not in self._functions:
            wrapped = b"return function(KEYS, ARGV)\n" + source + b"\nend"
            try:
                self._functions[sha] = self._runtime.execute(wrapped)
            except lupa.lua51.LuaError as error:
                raise ServerError(f"ERR Error compiling script: {error}") from None
        return sha

    def run(self, server: RedisServer, sha: str, keys: list[bytes], arguments: list[bytes]) -> Any:
        before, self._server = self._server, server
        try:
            return self._reply(self._functions[sha](self._table(*keys), self._table(*arguments)))
        except lupa.lua51.LuaError as error:
            raise ServerError(f"ERR Error running script: {error}") from None
        finally:
            self._server = before

    def lines_not_run(self, work: Callable[[], None]) -> set[int]:
        """Do some work and return the lines of the scripts that it ran which were passed over each time."""
        ran, all_lines = self._table(), self._table()
        self._watch(ran, all_lines)
        try:
            work()
        finally:
            self._watch(None, None)
        return {line - 1 for line in set(all_lines) - set(ran)}  # the first line is ours: see `load`

    def _call(self, name: bytes, *words: Any) -> Any:
        return self._value(self._server._call(name.upper(), [_argument(word) for word in words]))  # type: ignore[union-attr]

    def _pcall(self, name: bytes, *words: Any) -> Any:
        try:
            return self._call(name, *words)
        except ServerError as error:
            return self._error(str(error).encode())

    def _error(self, text: bytes) -> Any:
        table = self._table()
        table[b"err"] = text
        return table

    def _status(self, text: bytes) -> Any:
        table = self._table()
        table[b"ok"] = text
        return table

    def _value(self, reply: Any) -> Any:
        if reply is None:
            return False
        if type(reply) is Status:
            return self._status(bytes(reply))
        if type(reply) is list:
            return self._table(*map(self._value, reply))
        return reply

    def _reply(self, value: Any) -> Any:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if type(value) is bytes or type(value) is int:
            return value
        if type(value) is float:
            return int(value)
        if (error := value[b"err"]) is not None:
            text = error.decode()
            raise ServerError(text if re.match(r"[A-Z]+ ", text) else f"ERR {text}")
        if (status := value[b"ok"]) is not None:
            return Status(status)
        found = []
        for position in range(1, len(value) + 1):
            item = value[position]
            if item is None:
                break
            found.append(self._reply(item))
        return found


_LUA: Final = _Lua()


def _argument(word: Any) -> bytes:
    if type(word) is bytes:
        return word
    if type(word) is int:
        return b"%d" % word
    if type(word) is float:
        return f"{word:.17g}".encode()
    raise ServerError("ERR Lua redis lib command arguments must be strings or integers")


# Helpers ---------------------------------------------------------------------------------------------------------------


def _integer(word: bytes) -> int:
    if not re.fullmatch(rb"-?(0|[1-9]\d*)", word):
        raise ServerError(_NOT_INTEGER)
    return int(word)


def _score_text(score: float) -> bytes:
    return b"%d" % int(score) if score == int(score) and abs(score) < 1e17 else f"{score:.17g}".encode()


def _score(word: bytes) -> float:
    try:
        return float(word)
    except ValueError:
        raise ServerError("ERR value is not a valid float") from None


def _deadline(server: RedisServer, unit: bytes, word: bytes, name: str) -> float:
    number = _integer(word)
    if number <= 0:
        raise ServerError(f"ERR invalid expire time in '{name}' command")
    scale = 1000 if unit in {b"EX", b"EXAT"} else 1
    return number * scale + (0 if unit.endswith(b"AT") else server.now)


class Sorted(dict[bytes, float]):
    """A sorted set: member -> score."""

    def ordered(self) -> list[tuple[float, bytes]]:
        """Return (score, member), lowest first."""
        return sorted((score, member) for member, score in self.items())

    def copy(self) -> Sorted:
        """Return a copy of the same type."""
        return Sorted(self)


# Keys -------------------------------------------------------------------------------------------------------------------


@_command("PING")
def _ping(server: RedisServer, words: list[bytes]) -> Any:
    return words[0] if words else Status(b"PONG")


@_command("TIME")
def _time(server: RedisServer, words: list[bytes]) -> Any:
    micros = round(server.clock() * 1_000_000)
    return [b"%d" % (micros // 1_000_000), b"%d" % (micros % 1_000_000)]


@_command("TYPE")
def _type(server: RedisServer, words: list[bytes]) -> Any:
    value = server.live(words[0])
    names = {bytes: b"string", set: b"set", Sorted: b"zset", dict: b"hash", list: b"list"}
    return Status(b"none" if value is None else names[type(value)])


@_command("EXISTS")
def _exists(server: RedisServer, words: list[bytes]) -> Any:
    return sum(server.live(key) is not None for key in words)


@_command("DEL", writes=True)
@_command("UNLINK", writes=True)
def _del(server: RedisServer, words: list[bytes]) -> Any:
    return sum(server.remove(key) for key in words)


@_command("RENAME", writes=True)
def _rename(server: RedisServer, words: list[bytes]) -> Any:
    source, target = words[0], words[1]
    value = server.live(source)
    if value is None:
        raise ServerError("ERR no such key")
    if source != target:
        expires = server.expires.get(source)
        server.note(source)
        del server.values[source]
        server.expires.pop(source, None)
        server.put(target, value, expires)
    return OK


def _expire(scale: int, *, absolute: bool = False) -> _Handler:
    def expire(server: RedisServer, words: list[bytes]) -> Any:
        key, number = words[0], _integer(words[1])
        if server.live(key) is None:
            return 0
        deadline = number * scale + (0 if absolute else server.now)
        if deadline <= server.now:
            server.remove(key)
            return 1
        server.note(key)
        server.expires[key] = deadline
        return 1

    return expire


_COMMANDS[b"EXPIRE"] = _expire(1000), True, False
_COMMANDS[b"PEXPIRE"] = _expire(1), True, False
_COMMANDS[b"EXPIREAT"] = _expire(1000, absolute=True), True, False
_COMMANDS[b"PEXPIREAT"] = _expire(1, absolute=True), True, False


@_command("PERSIST", writes=True)
def _persist(server: RedisServer, words: list[bytes]) -> Any:
    if server.live(words[0]) is None or words[0] not in server.expires:
        return 0
    server.note(words[0])
    del server.expires[words[0]]
    return 1


@_command("PTTL")
def _pttl(server: RedisServer, words: list[bytes]) -> Any:
    if server.live(words[0]) is None:
        return -2
    deadline = server.expires.get(words[0])
    return -1 if deadline is None else round(deadline - server.now)


@_command("TTL")
def _ttl(server: RedisServer, words: list[bytes]) -> Any:
    left = _pttl(server, words)
    return left if left < 0 else (left + 500) // 1000


@_command("SCAN")
def _scan(server: RedisServer, words: list[bytes]) -> Any:
    pattern, kind = b"*", None
    for at in range(1, len(words), 2):
        option = words[at].upper()
        if option == b"MATCH":
            pattern = words[at + 1]
        elif option == b"TYPE":
            kind = words[at + 1]
    expression = re.compile(fnmatch.translate(pattern.decode("latin-1").replace("\\", "")))
    keys = [key for key in sorted(server.values) if expression.match(key.decode("latin-1"))]
    live = [key for key in keys if server.live(key) is not None]
    return [b"0", [key for key in live if kind is None or _type(server, [key]) == kind]]


# Strings ----------------------------------------------------------------------------------------------------------------


@_command("GET")
def _get(server: RedisServer, words: list[bytes]) -> Any:
    return server.typed(words[0], bytes)


@_command("MGET")
def _mget(server: RedisServer, words: list[bytes]) -> Any:
    found = [server.live(key) for key in words]
    return [value if type(value) is bytes else None for value in found]


@_command("GETDEL", writes=True)
def _getdel(server: RedisServer, words: list[bytes]) -> Any:
    value = server.typed(words[0], bytes)
    server.remove(words[0])
    return value


@_command("GETEX", writes=True)
def _getex(server: RedisServer, words: list[bytes]) -> Any:
    key, value = words[0], server.typed(words[0], bytes)
    if value is None or len(words) == 1:
        return value
    unit = words[1].upper()
    if unit == b"PERSIST":
        _persist(server, [key])
    else:
        deadline = _deadline(server, unit, words[2], "getex")
        server.note(key)
        server.expires[key] = deadline
    return value


@_command("SET", writes=True, grows=True)
def _set(server: RedisServer, words: list[bytes]) -> Any:
    key, value, rest = words[0], words[1], words[2:]
    deadline: float | None = None
    flags: set[bytes] = set()
    while rest:
        word = rest.pop(0).upper()
        if word in {b"EX", b"PX", b"EXAT", b"PXAT"}:
            deadline = _deadline(server, word, rest.pop(0), "set")
        elif word in {b"NX", b"XX", b"GET", b"KEEPTTL"}:
            flags.add(word)
        else:
            raise ServerError(_SYNTAX)
    before = server.typed(key, bytes) if b"GET" in flags else server.live(key)
    refused = (b"NX" in flags and before is not None) or (b"XX" in flags and before is None)
    if not refused:
        server.put(key, value, server.expires.get(key) if b"KEEPTTL" in flags else deadline)
    if b"GET" in flags:
        return before
    return None if refused else OK


@_command("STRLEN")
def _strlen(server: RedisServer, words: list[bytes]) -> Any:
    return len(server.typed(words[0], bytes) or b"")


@_command("GETRANGE")
def _getrange(server: RedisServer, words: list[bytes]) -> Any:
    first, last = _integer(words[1]), _integer(words[2])
    value = server.typed(words[0], bytes) or b""
    if first < 0 and last < 0 and first > last:
        return b""
    first = max(0, first + len(value)) if first < 0 else first
    last = max(0, last + len(value)) if last < 0 else last
    return value[first : last + 1] if first <= last else b""


@_command("SETRANGE", writes=True, grows=True)
def _setrange(server: RedisServer, words: list[bytes]) -> Any:
    key, offset, patch = words[0], _integer(words[1]), words[2]
    value = server.typed(key, bytes)
    if not patch:
        return len(value or b"")
    padded = (value or b"").ljust(offset, b"\0")
    server.note(key)
    server.values[key] = padded[:offset] + patch + padded[offset + len(patch) :]
    return len(server.values[key])


@_command("APPEND", writes=True, grows=True)
def _append(server: RedisServer, words: list[bytes]) -> Any:
    value = server.typed(words[0], bytes) or b""
    server.note(words[0])
    server.values[words[0]] = value + words[1]
    return len(value) + len(words[1])


@_command("INCRBY", writes=True, grows=True)
def _incrby(server: RedisServer, words: list[bytes]) -> Any:
    change, value = _integer(words[1]), server.typed(words[0], bytes)
    number = (0 if value is None else _integer(value)) + change
    server.note(words[0])
    server.values[words[0]] = b"%d" % number
    return number


@_command("INCR", writes=True, grows=True)
def _incr(server: RedisServer, words: list[bytes]) -> Any:
    return _incrby(server, [words[0], b"1"])


# Sets, hashes, lists ----------------------------------------------------------------------------------------------------


@_command("SADD", writes=True, grows=True)
def _sadd(server: RedisServer, words: list[bytes]) -> Any:
    server.typed(words[0], set)
    server.note(words[0])
    members = server.typed(words[0], set, make=True)
    before = len(members)
    members.update(words[1:])
    return len(members) - before


@_command("SREM", writes=True)
def _srem(server: RedisServer, words: list[bytes]) -> Any:
    members = server.typed(words[0], set)
    if members is None:
        return 0
    server.note(words[0])
    before = len(members)
    members.difference_update(words[1:])
    after = len(members)
    server.drop_if_empty(words[0])
    return before - after


@_command("SMEMBERS")
def _smembers(server: RedisServer, words: list[bytes]) -> Any:
    return sorted(server.typed(words[0], set) or ())


@_command("SISMEMBER")
def _sismember(server: RedisServer, words: list[bytes]) -> Any:
    return int(words[1] in (server.typed(words[0], set) or ()))


@_command("SCARD")
def _scard(server: RedisServer, words: list[bytes]) -> Any:
    return len(server.typed(words[0], set) or ())


@_command("SPOP", writes=True)
def _spop(server: RedisServer, words: list[bytes]) -> Any:
    members = server.typed(words[0], set)
    if not members:
        return None if len(words) == 1 else []
    server.note(words[0])
    found = sorted(members)[: 1 if len(words) == 1 else _integer(words[1])]
    members.difference_update(found)
    server.drop_if_empty(words[0])
    return found[0] if len(words) == 1 else found


@_command("HSET", writes=True, grows=True)
def _hset(server: RedisServer, words: list[bytes]) -> Any:
    server.typed(words[0], dict)
    server.note(words[0])
    fields = server.typed(words[0], dict, make=True)
    before = len(fields)
    fields.update(zip(words[1::2], words[2::2], strict=True))
    return len(fields) - before


@_command("HGET")
def _hget(server: RedisServer, words: list[bytes]) -> Any:
    return (server.typed(words[0], dict) or {}).get(words[1])


@_command("HMGET")
def _hmget(server: RedisServer, words: list[bytes]) -> Any:
    fields = server.typed(words[0], dict) or {}
    return [fields.get(name) for name in words[1:]]


@_command("HGETALL")
def _hgetall(server: RedisServer, words: list[bytes]) -> Any:
    return [part for pair in (server.typed(words[0], dict) or {}).items() for part in pair]


@_command("HLEN")
def _hlen(server: RedisServer, words: list[bytes]) -> Any:
    return len(server.typed(words[0], dict) or {})


@_command("HDEL", writes=True)
def _hdel(server: RedisServer, words: list[bytes]) -> Any:
    fields = server.typed(words[0], dict)
    if fields is None:
        return 0
    server.note(words[0])
    removed = sum(fields.pop(name, None) is not None for name in words[1:])
    server.drop_if_empty(words[0])
    return removed


@_command("HINCRBY", writes=True, grows=True)
def _hincrby(server: RedisServer, words: list[bytes]) -> Any:
    change = _integer(words[2])
    number = _integer((server.typed(words[0], dict) or {}).get(words[1], b"0")) + change
    server.note(words[0])
    fields = server.typed(words[0], dict, make=True)
    fields[words[1]] = b"%d" % number
    return number


@_command("LPUSH", writes=True, grows=True)
def _lpush(server: RedisServer, words: list[bytes]) -> Any:
    server.typed(words[0], list)
    server.note(words[0])
    items = server.typed(words[0], list, make=True)
    for word in words[1:]:
        items.insert(0, word)
    return len(items)


# Sorted sets ------------------------------------------------------------------------------------------------------------


@_command("ZADD", writes=True, grows=True)
def _zadd(server: RedisServer, words: list[bytes]) -> Any:
    key, rest = words[0], words[1:]
    flags: set[bytes] = set()
    while rest and rest[0].upper() in {b"NX", b"XX", b"GT", b"LT", b"CH"}:
        flags.add(rest.pop(0).upper())
    if not rest or len(rest) % 2:
        raise ServerError(_SYNTAX)
    pairs = [(_score(score), member) for score, member in zip(rest[::2], rest[1::2], strict=True)]
    server.typed(key, Sorted)
    server.note(key)
    scores = server.typed(key, Sorted, make=True)
    added = changed = 0
    for score, member in pairs:
        before = scores.get(member)
        if (before is None and b"XX" in flags) or (before is not None and b"NX" in flags):
            continue
        if before is not None and ((b"GT" in flags and score <= before) or (b"LT" in flags and score >= before)):
            continue
        added += before is None
        changed += before is not None and before != score
        scores[member] = score
    server.drop_if_empty(key)
    return added + (changed if b"CH" in flags else 0)


@_command("ZREM", writes=True)
def _zrem(server: RedisServer, words: list[bytes]) -> Any:
    scores = server.typed(words[0], Sorted)
    if scores is None:
        return 0
    server.note(words[0])
    removed = sum(scores.pop(member, None) is not None for member in words[1:])
    server.drop_if_empty(words[0])
    return removed


@_command("ZSCORE")
def _zscore(server: RedisServer, words: list[bytes]) -> Any:
    score = (server.typed(words[0], Sorted) or {}).get(words[1])
    return None if score is None else _score_text(score)


@_command("ZMSCORE")
def _zmscore(server: RedisServer, words: list[bytes]) -> Any:
    scores = server.typed(words[0], Sorted) or {}
    return [_score_text(scores[member]) if member in scores else None for member in words[1:]]


@_command("ZCARD")
def _zcard(server: RedisServer, words: list[bytes]) -> Any:
    return len(server.typed(words[0], Sorted) or ())


def _bound(word: bytes) -> tuple[float, bool]:
    return (_score(word[1:]), True) if word.startswith(b"(") else (_score(word), False)


def _within(scores: Sorted, low: bytes, high: bytes) -> list[tuple[float, bytes]]:
    (least, above), (most, below) = _bound(low), _bound(high)
    found = scores.ordered()
    start = bisect.bisect_left(found, (least,)) if found else 0
    return [
        (score, member)
        for score, member in found[start:]
        if not (above and score == least) and (score < most if below else score <= most)
    ]


def _flat(pairs: list[tuple[float, bytes]], *, scores: bool) -> list[bytes]:
    if not scores:
        return [member for _, member in pairs]
    return [part for score, member in pairs for part in (member, _score_text(score))]


@_command("ZRANGEBYSCORE")
def _zrangebyscore(server: RedisServer, words: list[bytes]) -> Any:
    _bound(words[1]), _bound(words[2])
    found = _within(server.typed(words[0], Sorted) or Sorted(), words[1], words[2])
    options = [word.upper() for word in words[3:]]
    if b"LIMIT" in options:
        at = options.index(b"LIMIT")
        first, count = _integer(options[at + 1]), _integer(options[at + 2])
        found = found[first:] if count < 0 else found[first : first + count]
    return _flat(found, scores=b"WITHSCORES" in options)


@_command("ZCOUNT")
def _zcount(server: RedisServer, words: list[bytes]) -> Any:
    _bound(words[1]), _bound(words[2])
    return len(_within(server.typed(words[0], Sorted) or Sorted(), words[1], words[2]))


def _ranks(size: int, first: bytes, last: bytes) -> slice:
    start, end = _integer(first), _integer(last)
    start = max(0, start + size) if start < 0 else start
    end = end + size if end < 0 else end
    return slice(start, max(start, end + 1))


@_command("ZRANGE")
def _zrange(server: RedisServer, words: list[bytes]) -> Any:
    _integer(words[1]), _integer(words[2])
    found = (server.typed(words[0], Sorted) or Sorted()).ordered()
    chosen = found[_ranks(len(found), words[1], words[2])]
    return _flat(chosen, scores=b"WITHSCORES" in [word.upper() for word in words[3:]])


def _zremove(server: RedisServer, key: bytes, chosen: Callable[[Sorted], list[tuple[float, bytes]]]) -> int:
    scores = server.typed(key, Sorted)
    if scores is None:
        return 0
    server.note(key)
    members = chosen(scores)
    for _, member in members:
        del scores[member]
    server.drop_if_empty(key)
    return len(members)


@_command("ZREMRANGEBYSCORE", writes=True)
def _zremrangebyscore(server: RedisServer, words: list[bytes]) -> Any:
    _bound(words[1]), _bound(words[2])
    return _zremove(server, words[0], lambda scores: _within(scores, words[1], words[2]))


@_command("ZREMRANGEBYRANK", writes=True)
def _zremrangebyrank(server: RedisServer, words: list[bytes]) -> Any:
    _integer(words[1]), _integer(words[2])
    return _zremove(server, words[0], lambda scores: scores.ordered()[_ranks(len(scores), words[1], words[2])])


# Scripts and the rest -----------------------------------------------------------------------------------------------------


def _split(words: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    count = _integer(words[1])
    return words[2 : 2 + count], words[2 + count :]


@_command("EVAL")
def _eval(server: RedisServer, words: list[bytes]) -> Any:
    sha = _LUA.load(words[0])
    server.scripts.add(sha)
    return server.script(sha, *_split(words))


@_command("EVALSHA")
def _evalsha(server: RedisServer, words: list[bytes]) -> Any:
    sha = words[0].decode().lower()
    if sha not in server.scripts:
        raise ServerError("NOSCRIPT No matching script. Please use EVAL.")
    return server.script(sha, *_split(words))


@_command("SCRIPT")
def _script(server: RedisServer, words: list[bytes]) -> Any:
    deed = words[0].upper()
    if deed == b"LOAD":
        sha = _LUA.load(words[1])
        server.scripts.add(sha)
        return sha.encode()
    if deed == b"FLUSH":
        server.forget_scripts()
        return OK
    return [int(word.decode().lower() in server.scripts) for word in words[1:]]


@_command("WAIT")
def _wait(server: RedisServer, words: list[bytes]) -> Any:
    return 0


@_command("PUBLISH")
def _publish(server: RedisServer, words: list[bytes]) -> Any:
    return 0


@_command("CLIENT")
def _client(server: RedisServer, words: list[bytes]) -> Any:
    return OK


@_command("CONFIG")
def _config(server: RedisServer, words: list[bytes]) -> Any:
    raise ServerError("NOPERM this user has no permissions to run the 'config' command")


@_command("INFO")
def _info(server: RedisServer, words: list[bytes]) -> Any:
    return b"# Server\r\nredis_version:7.0.15\r\n"
