"""From a URL to a client: standalone, Sentinel, Cluster, embedded. Must never leave a default of redis-py in charge.

Those retry ten times, retry a wrong password, and hang for a minute on a silent server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis, Sentinel
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_reuse.config import Config, redacted_url
from session_reuse.errors import ConfigurationError

if TYPE_CHECKING:
    from session_reuse.store.embedded import EmbeddedServer

SCHEMES: Final = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster", "embedded",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and what to do to open and to close it besides.

    Attributes:
        client: an asyncio redis-py client.
        revive: starts a private server, also again when it is gone; blocks. None for servers that are not ours.
        release: lets go of a private server; blocks.
    """

    client: Any
    revive: Callable[[], None] | None = None
    release: Callable[[], None] | None = None


def connect(config: Config) -> Connection:
    """Make the client for `config.url`. Connects to nothing and starts nothing.

    Raises:
        ConfigurationError: the URL is wrong, or no redis-server can be had for `embedded://`.
    """
    parts = urlsplit(config.url)
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(f"url {redacted_url(config.url)!r}: the scheme must be one of {', '.join(SCHEMES)}")
    try:
        if parts.scheme == "embedded":
            return _embedded(config)
        if parts.scheme.endswith("+sentinel"):
            return Connection(_sentinel(config))
        if parts.scheme.endswith("+cluster"):
            return Connection(_cluster(config))
        return Connection(_standalone(config, parts.scheme))
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"url {redacted_url(config.url)!r}: {_reason(error)}") from None


def _standalone(config: Config, scheme: str) -> Redis:
    if scheme != "unix" and not urlsplit(config.url).hostname:
        raise ValueError("there is no host")
    options = _options(config)
    if scheme == "unix":
        del options["socket_keepalive"]  # redis-py's unix connections raise a TypeError for it when they connect
    client: Redis = Redis.from_url(config.url, **options)
    return client


def check_client(client: Any) -> None:
    """Refuse a client that we cannot work with.

    Raises:
        ConfigurationError: it is synchronous, or it decodes replies.
    """
    name = f"{type(client).__module__}.{type(client).__qualname__}"
    if not hasattr(client, "aclose") or not callable(getattr(client, "pipeline", None)):
        raise ConfigurationError(f"expected a URL or an asyncio Redis client, not {name}")
    if _decodes(client):
        raise ConfigurationError("the Redis client must be made with decode_responses=False: sessions are bytes")


def _decodes(client: Any) -> bool:
    pool = getattr(client, "connection_pool", None)
    arguments = getattr(pool, "connection_kwargs", None) or getattr(client, "connection_kwargs", None) or {}
    return bool(arguments.get("decode_responses"))


def _options(config: Config) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": config.connect_timeout,
        "socket_timeout": config.save_timeout + 1.0,
        "socket_keepalive": True,
        "protocol": 2,
        "driver_info": None,
    }


def _embedded(config: Config) -> Connection:
    from session_reuse.store.embedded_server import find_server_binary, open_folder

    location = config.url.partition("://")[2]
    folder = open_folder(Path(unquote(location)).expanduser() if location else None)
    find_server_binary()
    private = _PrivateServer(folder.path)
    client = Redis(unix_socket_path=str(folder.socket_path), **_options(config))
    return Connection(client, revive=private.start, release=private.release)


class _PrivateServer:
    """The embedded server of one folder: started when it is needed, let go of at the end. For threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: EmbeddedServer | None = None
        self._lock = threading.Lock()
        self._released = False

    def start(self) -> None:
        """Start the server, or make sure that it still runs."""
        from session_reuse.store.embedded import acquire

        with self._lock:
            if self._released:
                return
            if self._handle is None:
                self._handle = acquire(self._folder)
            else:
                self._handle.ensure_running()

    def release(self) -> None:
        """Let go of it, for good."""
        with self._lock:
            self._released = True
            if self._handle is not None:
                self._handle.release()


def _sentinel(config: Config) -> Redis:
    url, hosts = _many_hosts(config.url, 26379)
    name, _, database = url.path.strip("/").partition("/")
    if not name:
        raise ValueError("a Sentinel URL ends in /master-name or /master-name/db")
    options = _options(config) | _credentials(url)
    if url.scheme.startswith("rediss"):
        options["ssl"] = True
    sentinel_options = {key: value for key, value in options.items() if key not in {"username", "password"}}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        hosts, sentinel_kwargs=sentinel_options, **options
    )
    client: Redis = sentinel.master_for(name, db=int(database or 0))
    return client


def _cluster(config: Config) -> RedisCluster:
    url, hosts = _many_hosts(config.url, 6379)
    options = _options(config) | _credentials(url)
    retry = options.pop("retry")
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in hosts],
        ssl=url.scheme.startswith("rediss"),
        retry=retry,
        require_full_coverage=False,
        **options,
    )


def _many_hosts(url: str, default_port: int) -> tuple[Any, list[tuple[str, int]]]:
    parts = urlsplit(url)
    hosts = []
    for part in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{part}")
        if not one.hostname:
            raise ValueError("there is no host")
        hosts.append((one.hostname, one.port or default_port))
    return parts, hosts


def _credentials(url: Any) -> dict[str, Any]:
    user, _, password = url.netloc.rpartition("@")[0].partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value} | dict(parse_qsl(url.query))


def _reason(error: Exception) -> str:
    """Return why a URL was refused, without the parts of it that redis-py and urllib quote."""
    text = str(error)
    return (
        "the port or the database is not a number"
        if "Port" in text or "int()" in text
        else text.split("'", maxsplit=1)[0]
    )
