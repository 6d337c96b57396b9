"""Judge the facts of a server: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from shlex import quote
from typing import Final

from session_reuse._cleanup.notifications import NEEDED_EVENTS, missing_events
from session_reuse._settings.url import parse_url
from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnosis
from session_reuse.cli.doctor.facts import Facts
from session_reuse.cli.doctor.finding import Finding, fail, ok, own_command, warn
from session_reuse.cli.formatting import duration, size
from session_reuse.config import Config

OLDEST_VERSION: Final = (6, 2)
_CLOCK_WARN, _CLOCK_FAIL = 1.0, 60.0
_FULL: Final = 0.9
_ESSENTIAL: Final = ("restore", "save", "leases", "audit", "evict")
"""Purposes without which agents do not work as they are set up."""


def redis_cli(facts: Facts, config: Config) -> str:
    """Return `redis-cli` with what leads it to a server: the only one of the URL, or the one of a Cluster with these facts."""
    url = parse_url(config.url)
    host, _, port = facts.name.rpartition(":") if facts.name else ("", "", "")
    if not host and url.hosts:
        host, port = url.hosts[0][0], str(url.hosts[0][1])
    where = f" -h {host} -p {port}" if host else f" -s {quote(url.path)}" if url.kind == "unix" else ""
    return f"redis-cli{where}{' --tls' if url.tls else ''}"


def version(facts: Facts, _config: Config) -> Finding:
    """Redis 6.2 is needed for GETEX, with which a restore is one command."""
    # Some hosts forbid INFO, others HELLO.
    text = facts.reported.get("version") or facts.reported.get("redis_version", "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    if not numbers:
        return ok("version", "not known: the user may use neither HELLO nor INFO")
    if numbers < OLDEST_VERSION:
        return fail("version", f"Redis {text} has no GETEX", "upgrade the server to Redis 6.2 or later, or to Valkey")
    return ok("version", f"{facts.reported.get('server', 'redis').capitalize()} {text}")


def latency(facts: Facts, config: Config) -> Finding:
    """An attempt ends after attempt_timeout."""
    taken = facts.latencies
    middle, high = taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)]
    text = f"p50 {duration(middle)}, p99 {duration(high)} over {len(taken)} reads"
    remedy = f"move the agents nearer to the store, or raise attempt_timeout (now {config.attempt_timeout:g} s)"
    if middle >= config.attempt_timeout:
        return fail("latency", text, remedy)
    return warn("latency", text, remedy) if high >= config.attempt_timeout / 2 else ok("latency", text)


def rights(facts: Facts, config: Config) -> Finding:
    """Without the rights of agents, sessions start fresh."""
    refused = facts.refused
    if not refused:
        return ok("rights", "every command we use is allowed")
    lacking = "; ".join(f"{purpose}: {' '.join(names)}" for purpose, names in refused.items())
    if not any(purpose in _ESSENTIAL for purpose in refused):
        return ok("rights", f"the commands of agents are allowed, not allowed for {lacking}")
    names = sorted({name.lower() for purpose in _ESSENTIAL for name in refused.get(purpose, ())})
    allowed = f"{redis_cli(facts, config)} ACL SETUSER <user> ~{config.key_prefix}:*"
    if facts.outside:
        return fail("rights", f"the keys {config.key_prefix}:* are not allowed to this user", allowed)
    # Managed Redis often comes with a read-only user beside the full one.
    only_reads = "GET" not in refused.get("restore", ()) and "SET" in refused.get("save", ())
    text = f"{'the user may only read: ' if only_reads else ''}not allowed for {lacking}"
    return fail("rights", text, f"{allowed} {' '.join('+' + name for name in names)}")


def commands(facts: Facts, _config: Config) -> Finding:
    """Some hosts switch commands off for all users."""
    if not facts.unknown:
        return ok("commands", "the server has every command we use")
    text = f"the server does not know {' '.join(dict.fromkeys(facts.unknown))}"
    return fail("commands", text, "remove rename-command from redis.conf, or use another server")


def writes(facts: Facts, _config: Config) -> Finding:
    """A server may answer reads and refuse writes."""
    if facts.trouble is None:
        return ok("writes", "accepted")
    check = "memory" if facts.trouble.trouble is Trouble.FULL else "writes"
    return fail(check, facts.trouble.found, facts.trouble.remedy)


def notifications(facts: Facts, config: Config) -> Finding:
    """Events make the clean-up prompt. Without them it is as exact, but later."""
    setting = facts.reported.get("notify-keyspace-events")
    if setting is None:
        return ok(
            "notifications", "not known: the user may not use CONFIG GET, and the clean-up does not depend on them"
        )
    lacking = missing_events(frozenset(setting))
    if not lacking:
        return ok("notifications", f"notify-keyspace-events {setting}")
    wanted = "".join(sorted({*setting, *NEEDED_EVENTS}))
    by_redis = f"{redis_cli(facts, config)} CONFIG SET notify-keyspace-events {wanted}"
    remedy = f"{own_command('cleanup --configure-notifications', config)}, or {by_redis}"
    return warn("notifications", f"notify-keyspace-events lacks {''.join(sorted(lacking))}", remedy)


def eviction(facts: Facts, config: Config) -> Finding:
    """A server that evicts keys drops logins, leases and the memory of invalidations silently."""
    told = facts.reported
    policy, limit = told.get("maxmemory-policy", told.get("maxmemory_policy")), told.get("maxmemory")
    if policy is None or limit is None:
        return ok("eviction", "not known: the user may use neither CONFIG GET nor INFO. It should be noeviction")
    if policy == "noeviction":
        return ok("eviction", "noeviction")
    remedy = f"{redis_cli(facts, config)} CONFIG SET maxmemory-policy noeviction, or use a separate server for sessions"
    if limit == "0":  # Redis evicts at maxmemory only
        return ok("eviction", f"{policy}, without effect: there is no maxmemory")
    return warn("eviction", f"{policy} drops sessions and leases silently when memory is full", remedy)


def memory(facts: Facts, _config: Config) -> Finding:
    """A full server refuses saves."""
    used, limit = facts.number("used_memory"), facts.number("maxmemory")
    if not facts.has_info:
        return ok("memory", "not known: the user may not use INFO")
    if not limit:
        return ok("memory", f"{size(used)} used, no limit")
    text = f"{size(used)} of {size(limit)} used ({used / limit:.0%})"
    if used < _FULL * limit:
        return ok("memory", text)
    remedy = "raise maxmemory, or shorten ttl: a full server refuses saves, which then wait in the agents"
    return (fail if used >= limit else warn)("memory", text, remedy)


def persistence(facts: Facts, config: Config) -> Finding:
    """A restart drops all data that is not on disk. After a failed snapshot the server refuses writes."""
    told = facts.reported
    if not facts.has_info:
        return ok("persistence", "not known: the user may not use INFO. appendonly should be yes")
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if told.get(name) == "err"]
    if failed:
        remedy = "make room on the server's disk: it refuses writes until then"
        return fail("persistence", f"{failed[0]} is err", remedy)
    if told.get("aof_enabled") == "1":
        return ok("persistence", "append-only file")
    if told.get("save"):
        return ok("persistence", f"snapshots ({told['save']}): a crash loses what came after the last one")
    if "save" not in told:
        return ok("persistence", "no append-only file. Snapshots are not known: the user may not use CONFIG GET")
    remedy = f"{redis_cli(facts, config)} CONFIG SET appendonly yes, and CONFIG REWRITE"
    return warn("persistence", "none: a restart of the server logs every agent out", remedy)


def clock(facts: Facts, _config: Config) -> Finding:
    """Ages and retirement follow the clocks of the clients."""
    ahead = facts.clock_ahead
    if ahead is None:
        return ok("clock", "not known: the user may not use TIME")
    text = f"{abs(ahead) * 1000:.0f} ms {'ahead of' if ahead >= 0 else 'behind'} ours"
    if abs(ahead) < _CLOCK_WARN:
        return ok("clock", text)
    return (fail if abs(ahead) >= _CLOCK_FAIL else warn)("clock", text, "synchronise both clocks by NTP")


def topology(facts: Facts, config: Config) -> Finding:
    """The URL must lead to a server that accepts writes, with the scheme for its kind."""
    told, kind = facts.reported, parse_url(config.url).kind
    mode = told.get("mode") or told.get("redis_mode", "standalone")
    if mode == "sentinel":
        return fail("topology", "this is a Sentinel", "use redis+sentinel://host:port/master-name in the URL")
    if mode == "cluster" and kind != "cluster":
        return _unfit(diagnosis(Trouble.IN_CLUSTER))
    if told.get("role") in {"replica", "slave"}:
        return _unfit(diagnosis(Trouble.READ_ONLY))
    if told.get("loading") == "1":
        return _unfit(diagnosis(Trouble.LOADING))
    replicas = facts.number("connected_slaves")
    if facts.has_info and replicas < config.wait_replicas:
        remedy = "connect more replicas, or lower wait_replicas"
        return warn("topology", f"{replicas} replicas, and wait_replicas is {config.wait_replicas}", remedy)
    return ok("topology", f"{mode} primary{f' with {replicas} replicas' if facts.has_info else ''}")


def _unfit(found: Diagnosis) -> Finding:
    return fail("topology", found.found, found.remedy)


IDENTITY: Final = ("version", "topology")
"""If one of these checks fails, the others are misleading: on a Sentinel or a replica all would fail for another reason."""
_CHECKS: Final[tuple[Callable[[Facts, Config], Finding], ...]] = (
    version, topology, latency, rights, commands, writes, notifications, eviction, memory, persistence, clock,
)  # fmt: skip


def server_findings(facts: Facts, config: Config) -> list[Finding]:
    """Return the findings about one server."""
    named = f"{facts.name}: " if facts.name else ""
    findings = [check(facts, config) for check in _CHECKS]
    return [replace(each, found=named + each.found) for each in findings]
