"""Judges what a server says of itself. Pure: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from session_reuse.cli.doctor.facts import Facts
from session_reuse.cli.doctor.finding import Finding, fail, ok, warn
from session_reuse.cli.doctor.rights import ESSENTIAL
from session_reuse.cli.formatting import duration, size
from session_reuse.config import Config

OLDEST_VERSION: Final = (6, 2)
NEEDED_EVENTS: Final = frozenset("Exge")
"""Keyevent channel, expired, generic and evicted: what the clean-up job listens for."""
_ALL_CLASSES: Final = frozenset("g$lshzxetd")
"""What `A` stands for in notify-keyspace-events."""
_FLAG_ORDER: Final = "KEAxg$lshztedmn"
_CLOCK_WARN, _CLOCK_FAIL = 1.0, 60.0
_FULL: Final = 0.9


def version(facts: Facts, _config: Config) -> Finding:
    """Redis 6.2 brought GETEX, by which a restore is one command."""
    text = facts.hello.get("version") or facts.info.get("redis_version", "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if not numbers:
        return warn("version", "not told", "make sure that the server is Redis 6.2 or later, or Valkey")
    if numbers < OLDEST_VERSION:
        return fail("version", f"Redis {text} has no GETEX", "upgrade the server to Redis 6.2 or later, or to Valkey")
    return ok("version", f"{facts.hello.get('server', 'redis').capitalize()} {text}")


def latency(facts: Facts, config: Config) -> Finding:
    """An attempt that takes longer than attempt_timeout is given up."""
    taken = facts.latencies
    middle, high = taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)]
    told = f"p50 {duration_ms(middle)}, p99 {duration_ms(high)} over {len(taken)} reads"
    remedy = f"move the agents nearer to the store, or raise attempt_timeout (now {config.attempt_timeout:g} s)"
    if middle >= config.attempt_timeout:
        return fail("latency", told, remedy)
    return warn("latency", told, remedy) if high >= config.attempt_timeout / 2 else ok("latency", told)


def duration_ms(seconds: float) -> str:
    """Return a latency in milliseconds with the digits that matter."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else duration(seconds)


def rights(facts: Facts, _config: Config) -> Finding:
    """A user that lacks a right is refused, and sessions start fresh."""
    if facts.missing is None:
        return warn(
            "rights", "cannot be found out: the user may not use MULTI", "compare the user with the minimal ACL"
        )
    if not facts.missing:
        return ok("rights", "every command we use is allowed")
    lacking = "; ".join(f"{purpose}: {' '.join(names)}" for purpose, names in facts.missing.items())
    names = sorted({name.lower() for listed in facts.missing.values() for name in listed})
    remedy = (
        f"redis-cli ACL SETUSER <user> {' '.join('+' + name for name in names)}, and the key pattern ~<key_prefix>:*"
    )
    is_essential = any(purpose in ESSENTIAL for purpose in facts.missing)
    return (fail if is_essential else warn)("rights", f"not allowed for {lacking}", remedy)


def notifications(facts: Facts, _config: Config) -> Finding:
    """Events make the clean-up prompt; without them it is as exact, but later."""
    setting = facts.settings.get("notify-keyspace-events")
    if setting is None:
        remedy = (
            "nothing needs doing: the clean-up compares its index of deadlines; ask the host for Exge to make it prompt"
        )
        return warn("notifications", "the user may not read the setting", remedy)
    enabled = set(setting) | (_ALL_CLASSES if "A" in setting else set())
    lacking = NEEDED_EVENTS - enabled
    if not lacking:
        return ok("notifications", f"notify-keyspace-events {setting}")
    wanted = _in_order(set(setting) | NEEDED_EVENTS)
    remedy = f"session-reuse cleanup --configure-notifications, or redis-cli CONFIG SET notify-keyspace-events {wanted}"
    return warn("notifications", f"notify-keyspace-events lacks {_in_order(lacking)}", remedy)


def _in_order(flags: set[str] | frozenset[str]) -> str:
    return "".join(sorted(flags, key=_FLAG_ORDER.find))


def eviction(facts: Facts, _config: Config) -> Finding:
    """A server that evicts drops logins, and with them leases and the memory of invalidations, without a word."""
    policy, limit = facts.setting("maxmemory-policy"), facts.setting("maxmemory")
    if policy is None or limit is None:
        return warn("eviction", "not told", "make sure that maxmemory-policy is noeviction")
    if policy == "noeviction":
        return ok("eviction", "noeviction")
    remedy = "redis-cli CONFIG SET maxmemory-policy noeviction, or keep sessions on a server of their own"
    if limit == "0":
        return ok("eviction", f"{policy}, which never comes into play: there is no maxmemory")
    return warn("eviction", f"{policy} drops sessions and leases silently when memory is full", remedy)


def memory(facts: Facts, _config: Config) -> Finding:
    """A full server refuses saves."""
    used, limit = facts.number("used_memory"), int(facts.setting("maxmemory") or 0)
    if not facts.info:
        return warn("memory", "not told: the user may not use INFO", "watch the server's memory elsewhere")
    if not limit:
        return ok("memory", f"{size(used)} used, no limit")
    told = f"{size(used)} of {size(limit)} used ({used / limit:.0%})"
    if used < _FULL * limit:
        return ok("memory", told)
    remedy = "raise maxmemory, or shorten ttl; a full server refuses saves, which then wait in the agents"
    return (fail if used >= limit else warn)("memory", told, remedy)


def persistence(facts: Facts, _config: Config) -> Finding:
    """What is not on disk is logged out by a restart; a failed snapshot makes the server refuse writes."""
    if not facts.info:
        return warn("persistence", "not told: the user may not use INFO", "make sure that appendonly is yes")
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if facts.info.get(name) == "err"]
    if failed:
        return fail(
            "persistence", f"{failed[0]} is err", "make room on the server's disk: it refuses writes until then"
        )
    if facts.info.get("aof_enabled") == "1":
        return ok("persistence", "append-only file")
    if facts.settings.get("save"):
        return ok("persistence", f"snapshots ({facts.settings['save']}); a crash loses what came after the last one")
    if not facts.settings:
        return warn("persistence", "no append-only file; snapshots are not told", "ask the host for persistence")
    return warn(
        "persistence",
        "none: a restart of the server logs every agent out",
        "redis-cli CONFIG SET appendonly yes, and CONFIG REWRITE",
    )


def clock(facts: Facts, _config: Config) -> Finding:
    """Ages and retirement are reckoned by the clients' clocks."""
    ahead = facts.clock_ahead
    if ahead is None:
        return warn("clock", "the user may not ask", "allow TIME; our scripts need it as well")
    told = f"{abs(ahead) * 1000:.0f} ms {'ahead of' if ahead >= 0 else 'behind'} ours"
    if abs(ahead) < _CLOCK_WARN:
        return ok("clock", told)
    return (fail if abs(ahead) >= _CLOCK_FAIL else warn)("clock", told, "synchronise both clocks by NTP")


def topology(facts: Facts, config: Config) -> Finding:
    """The URL must lead to a server that takes writes, in the way its kind is spoken to."""
    mode, role = facts.hello.get("mode", "standalone"), facts.hello.get("role", "master")
    scheme = config.url.partition("://")[0]
    if mode == "sentinel":
        return fail("topology", "this is a Sentinel", "use redis+sentinel://host:port/master-name in the URL")
    if mode == "cluster" and not scheme.endswith("+cluster"):
        return fail("topology", "this server is part of a Cluster", "use redis+cluster://host:port in the URL")
    if role in {"replica", "slave"}:
        remedy = "point the URL to the primary, or use redis+sentinel:// to have it found"
        return fail("topology", "this is a replica, which takes no writes", remedy)
    replicas = facts.number("connected_slaves")
    if replicas < config.wait_replicas:
        remedy = "connect more replicas, or lower wait_replicas"
        return warn("topology", f"{replicas} replicas, and wait_replicas is {config.wait_replicas}", remedy)
    if facts.info.get("loading") == "1":
        return warn("topology", "it is still loading its data", "wait")
    return ok("topology", f"{mode} primary with {replicas} replicas")


SERVER_CHECKS: Final[tuple[Callable[[Facts, Config], Finding], ...]] = (
    version, topology, latency, rights, notifications, eviction, memory, persistence, clock,
)  # fmt: skip


def server_findings(facts: Facts, config: Config) -> list[Finding]:
    """Return what all checks say of one server."""
    named = f"{facts.name}: " if facts.name else ""
    findings = [check(facts, config) for check in SERVER_CHECKS]
    return [Finding(each.check, each.status, named + each.found, each.remedy) for each in findings]
