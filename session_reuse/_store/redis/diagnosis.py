"""Why a store cannot be used, in words: from an exception of redis-py's or of the network to a reason and a remedy."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from redis import exceptions as redis_errors
from redis.asyncio.sentinel import MasterNotFoundError

_AWAY: Final = "; agents start from what their process knows meanwhile, else empty, and their saves wait"


class Trouble(Enum):
    """The kinds of failure with their own remedy: the finding, and the remedy."""

    DNS = "there is no host of this name", "correct the host in SESSION_REUSE_URL, or the name server"
    REFUSED = (
        "the connection is refused: nothing listens at this port",
        f"start the server, or correct host and port in SESSION_REUSE_URL{_AWAY}",
    )
    UNREACHABLE = "there is no way to this host", f"look at the network and its firewalls{_AWAY}"
    NO_SOCKET = (
        "there is no socket at this path",
        f"start the server, or correct the path in SESSION_REUSE_URL{_AWAY}",
    )
    SOCKET_RIGHTS = (
        "this user may not open the socket",
        "add the user to the socket's group, or set unixsocketperm of the server",
    )
    SILENT = "no answer in time", f"start the server again, or look for a firewall between here and there{_AWAY}"
    CERTIFICATE = "the certificate is not trusted", "add ?ssl_ca_certs=/path/to/ca.pem to the URL"
    CLIENT_CERTIFICATE = (
        "the server asks for a client certificate",
        "add ?ssl_certfile=/path&ssl_keyfile=/path to the URL",
    )
    NO_TLS = "the server does not speak TLS at this port", "use redis:// in place of rediss://, or its TLS port"
    TLS_ONLY = "the server speaks TLS at this port", "use rediss:// in place of redis://"
    TLS_FAILED = "the TLS handshake fails", "compare the TLS versions and ciphers of both sides"
    HTTP = "an HTTP server answers, not Redis", "correct host and port in SESSION_REUSE_URL"
    NOT_REDIS = "something answers that is not Redis", "correct host and port in SESSION_REUSE_URL"
    PASSWORD_WRONG = (
        "the server rejects the user or the password",
        "correct user and password in SESSION_REUSE_URL: redis://user:password@host",
    )
    PASSWORD_MISSING = (
        "the server wants a password, and there is none in the URL",
        "add user and password to SESSION_REUSE_URL: redis://user:password@host",
    )
    PASSWORD_NOT_SET = (
        "the server has no password for the default user",
        "name the user in SESSION_REUSE_URL (redis://user:password@host), or leave the password out",
    )
    PROTECTED = (
        "the server is in protected mode: it takes connections of its own machine only",
        "set a password on the server (requirepass), or bind it to a private network",
    )
    RIGHTS = "the user lacks a right", "compare the user with Minimal rights in docs/reference/stored-form.md"
    DATABASE = "there is no database of this number", "use a lower number in the URL, mostly /0"
    IN_CLUSTER = "this server is part of a Cluster", "use redis+cluster://host:port in the URL"
    NOT_A_CLUSTER = "this server is not part of a Cluster", "use redis://host:port in the URL"
    NO_MASTER = (
        "no Sentinel knows a master of this name that works",
        "correct the master's name in redis+sentinel://host:port/name, or start the master",
    )
    READ_ONLY = (
        "this is a read-only replica, which takes no writes",
        "point the URL to the primary, or use redis+sentinel:// to have it found",
    )
    NO_REPLICAS = (
        "the server refuses writes: it has too few replicas in step",
        "start its replicas, or lower min-replicas-to-write",
    )
    FULL = (
        "the server's memory is full: it refuses writes",
        "raise maxmemory, or shorten ttl; saves wait in the agents until then",
    )
    DISK = (
        "the server refuses writes: it cannot save to its disk",
        "make room on the server's disk, and see the server's log",
    )
    CLIENTS = "the server has no room for another client", "raise maxclients, or close idle connections"
    LOADING = "the server is still loading its data", "wait until it is done"
    BUSY = "the server is held up by a script of somebody else", "redis-cli SCRIPT KILL"
    CLUSTER_DOWN = (
        "the Cluster is down: some of its slots have no node",
        "bring the lost nodes back; see redis-cli --cluster check",
    )
    UNKNOWN_COMMAND = (
        "the server does not know a command",
        "upgrade it to Redis 6.2 or later, or take back its rename-command",
    )
    CLOSED = "the server closes the connection", "see the server's log"
    OTHER = "the server cannot be used", "see the server's log"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finding and its remedy. Neither holds a secret."""

    trouble: Trouble
    found: str
    remedy: str


def diagnosis(trouble: Trouble, detail: str = "", remedy: str = "") -> Diagnosis:
    """Return the words for a kind of failure, with a detail such as the host, and with another remedy if given."""
    found, usual = trouble.value
    return Diagnosis(trouble, f"{found}: {detail}" if detail else found, remedy or usual)


class _Rule(NamedTuple):
    trouble: Trouble
    kinds: tuple[type[BaseException], ...]
    text: str = ""


_ANY: Final = (Exception,)
# The first rule that fits counts, so the more precise ones come first.
_RULES: Final = tuple(
    (rule, re.compile(rule.text))
    for rule in (
        _Rule(Trouble.CLIENT_CERTIFICATE, _ANY, "CERTIFICATE_REQUIRED|certificate required"),
        _Rule(Trouble.CERTIFICATE, (ssl.SSLCertVerificationError,)),
        _Rule(Trouble.TLS_FAILED, (ssl.SSLError,)),
        _Rule(Trouble.DNS, (socket.gaierror,)),
        _Rule(Trouble.REFUSED, (ConnectionRefusedError,)),
        _Rule(Trouble.NO_SOCKET, (FileNotFoundError,)),
        _Rule(Trouble.SOCKET_RIGHTS, (PermissionError,)),
        _Rule(Trouble.DATABASE, _ANY, "DB index is out of range|invalid DB index"),
        _Rule(Trouble.IN_CLUSTER, _ANY, "SELECT is not allowed in cluster mode"),
        _Rule(Trouble.IN_CLUSTER, (redis_errors.MovedError, redis_errors.AskError)),
        _Rule(Trouble.PROTECTED, _ANY, "protected mode"),
        _Rule(Trouble.CLIENTS, _ANY, "max number of clients"),
        _Rule(Trouble.PASSWORD_NOT_SET, _ANY, "without any password configured|no password is set"),
        _Rule(Trouble.PASSWORD_MISSING, _ANY, "NOAUTH|Authentication required|must be called with the client already"),
        _Rule(Trouble.RIGHTS, (redis_errors.NoPermissionError,)),
        _Rule(Trouble.RIGHTS, _ANY, "NOPERM|user executing the script can't|ACL failure in script"),
        _Rule(Trouble.PASSWORD_WRONG, (redis_errors.AuthenticationError, redis_errors.AuthorizationError)),
        _Rule(Trouble.PASSWORD_WRONG, _ANY, "WRONGPASS"),
        _Rule(Trouble.READ_ONLY, (redis_errors.ReadOnlyError,)),
        _Rule(Trouble.READ_ONLY, _ANY, "READONLY"),
        _Rule(Trouble.NO_REPLICAS, _ANY, "NOREPLICAS"),
        _Rule(Trouble.FULL, (redis_errors.OutOfMemoryError,)),
        _Rule(Trouble.FULL, _ANY, "^OOM"),
        _Rule(Trouble.DISK, _ANY, "^MISCONF"),
        _Rule(Trouble.LOADING, (redis_errors.BusyLoadingError,)),
        _Rule(Trouble.BUSY, _ANY, "^BUSY "),
        _Rule(Trouble.CLUSTER_DOWN, (redis_errors.ClusterDownError, redis_errors.SlotNotCoveredError)),
        _Rule(Trouble.HTTP, (redis_errors.InvalidResponse,), 'got "[<H]"|Protocol Error: b?.(<|HTTP)'),
        _Rule(Trouble.NOT_REDIS, (redis_errors.InvalidResponse,)),
        _Rule(Trouble.SILENT, (redis_errors.TimeoutError, TimeoutError)),
        _Rule(Trouble.UNREACHABLE, (OSError,), "No route to host|unreachable"),
        _Rule(Trouble.UNKNOWN_COMMAND, _ANY, "(?i)unknown (sub)?command"),
        # Late, because redis-py says so of every refusal of CLUSTER SLOTS (8.1).
        _Rule(Trouble.NOT_A_CLUSTER, _ANY, "[Cc]luster mode is not enabled|cluster support disabled"),
        _Rule(Trouble.NO_MASTER, (MasterNotFoundError,)),
        _Rule(Trouble.CLOSED, _ANY, "(?i)connection (closed|reset|lost)|Broken pipe"),
    )
)  # fmt: skip


def diagnose(error: BaseException) -> Diagnosis:
    """Return what an exception says of the store. The exceptions it was raised from count, too."""
    chain = list(_chain(error))
    for rule, text in _RULES:
        for each in chain:
            if isinstance(each, rule.kinds) and text.search(str(each)):
                return _certificate(each) if isinstance(each, ssl.SSLCertVerificationError) else diagnosis(rule.trouble)
    return diagnosis(Trouble.OTHER, type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _certificate(error: ssl.SSLCertVerificationError) -> Diagnosis:
    reason = error.verify_message or error.reason or "not valid"
    if "expired" in reason:
        return diagnosis(Trouble.CERTIFICATE, reason, "renew the server's certificate")
    if "mismatch" in reason or "doesn't match" in reason:
        return diagnosis(
            Trouble.CERTIFICATE,
            reason,
            "use the host name that the certificate is for, or add ?ssl_check_hostname=false",
        )
    return diagnosis(Trouble.CERTIFICATE, reason)
