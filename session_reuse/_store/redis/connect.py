"""From a URL to a client: standalone, Sentinel, Cluster, embedded. No default of redis-py's is left in charge."""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from redis import Redis as SynchronousRedis
from redis import RedisCluster as SynchronousCluster
from redis.asyncio import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_reuse._settings.url import StoreUrl, parse_url, redacted_url
from session_reuse._store.redis.redis_py import use_own_resolver
from session_reuse._store.redis.sentinels import HastySentinel
from session_reuse._store.redis.store import RedisStore
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError

StoreOrClient: TypeAlias = RedisStore | Redis | RedisCluster
"""What a manager takes in place of a URL."""
_NOT_FOR_SENTINELS: Final = frozenset({"db", "max_connections", "client_name"})


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and what to do to open and to close it besides.

    Attributes:
        client: an asyncio redis-py client.
        revive: starts a private server, or starts it again. Blocks. None for other servers.
        release: stops using a private server. Blocks.
    """

    client: Any
    revive: Callable[[], None] | None = None
    release: Callable[[], None] | None = None


def connect(config: Config) -> Connection:
    """Make the client for `config.url`. Connects to nothing and starts nothing.

    Raises:
        ConfigurationError: a certificate or key cannot be used, or no redis-server can be had for `embedded://`.
    """
    url = parse_url(config.url)
    if url.kind == "embedded":
        return _embedded(config, url)
    if url.tls:
        _check_certificates(url, redacted_url(config.url))
    client = _client(config, url)
    if url.hosts:
        use_own_resolver(client)
    return Connection(client)


def _check_certificates(url: StoreUrl, shown: str) -> None:
    """Load the certificates and the key once, so that a wrong file is named at the start."""
    options, context = url.options, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = "ssl_ca_certs"
    try:
        if trusted := options.get(name):
            context.load_verify_locations(cafile=trusted)
        name = "ssl_certfile"
        if certificate := options.get(name):
            context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password", ""))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not readable"
        raise ConfigurationError(f"url {shown}: option {name}: {options[name]} cannot be used: {reason}") from None


def _options(config: Config, url: StoreUrl) -> dict[str, Any]:
    """Return redis-py's arguments that every kind of client gets. The URL's win."""
    options: dict[str, Any] = {
        "decode_responses": False,  # sessions are bytes
        # By default ten retries, also after a wrong password (redis-py 8.1.0).
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": config.connect_timeout,
        "socket_timeout": config.save_timeout + 1.0,  # a last resort: the guard ends each operation at its budget
        "protocol": 2,
        "driver_info": None,  # else a CLIENT SETINFO at each connect
    }
    if url.hosts:  # redis-py's unix connections raise a TypeError for it when they connect
        options |= {"socket_keepalive": True, "ssl": url.tls}
    return {**options, **url.options}


def client_at(config: Config, url: StoreUrl, host: str, port: int, *, is_sentinel: bool = False) -> Redis:
    """Return a client for one address, with the options of a URL."""
    options = _sentinels_options(config, url) if is_sentinel else _servers_options(config, url)
    return Redis(host=host, port=port, **options)


def _servers_options(config: Config, url: StoreUrl) -> dict[str, Any]:
    return {name: value for name, value in _options(config, url).items() if not name.startswith("sentinel_")}


def _sentinels_options(config: Config, url: StoreUrl) -> dict[str, Any]:
    options = _options(config, url)
    own = {name: options.get(f"sentinel_{name}") for name in ("username", "password")}
    return {
        name: value for name, value in _servers_options(config, url).items() if name not in _NOT_FOR_SENTINELS
    } | own


def _client(config: Config, url: StoreUrl) -> Redis | RedisCluster:
    if url.kind == "unix":
        return _on_socket(url.path, _options(config, url))
    if url.kind == "cluster":
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in url.hosts],
            require_full_coverage=False,  # a slot without a node stops its own sessions only
            **_options(config, url),
        )
    if url.kind == "sentinel":
        sentinel = HastySentinel(  # type: ignore[no-untyped-call]
            url.hosts, sentinel_kwargs=_sentinels_options(config, url), **_servers_options(config, url)
        )
        client: Redis = sentinel.master_for(url.master)
        return client
    return client_at(config, url, *url.hosts[0])


def _on_socket(path: str, options: dict[str, Any]) -> Redis:
    # By a pool: redis-py's Redis(unix_socket_path=...) drops the connect timeout (8.1.0).
    return Redis.from_pool(ConnectionPool(connection_class=UnixDomainSocketConnection, path=path, **options))


def check_client(given: object) -> None:
    """Refuse what looks like a client or a store and does not work as one.

    Raises:
        ConfigurationError: it is a class, of another library, synchronous, a pipeline, it decodes replies, or it is a
            fake server that runs no scripts.
    """
    if isinstance(given, type):
        raise ConfigurationError(
            f"expected an object, not the class {given.__qualname__}: write {given.__qualname__}(...)"
        )
    if hasattr(given, "enter"):  # a store with our interface
        return
    name = f"{type(given).__module__}.{type(given).__qualname__}"
    if isinstance(given, SynchronousRedis | SynchronousCluster):
        raise ConfigurationError(f"{name} is a synchronous client: use the one of redis.asyncio, or give a URL")
    if not isinstance(given, Redis | RedisCluster) or isinstance(given, Pipeline):
        raise ConfigurationError(f"expected a URL, a client of redis.asyncio or a store, not {name}")
    pool = getattr(given, "connection_pool", None)
    arguments = getattr(pool, "connection_kwargs", None) or getattr(given, "connection_kwargs", None) or {}
    if arguments.get("decode_responses"):
        raise ConfigurationError("the Redis client must be made with decode_responses=False: sessions are bytes")
    if name.startswith("fakeredis.") and importlib.util.find_spec("lupa") is None:
        raise ConfigurationError("fakeredis runs our scripts with Lua only: pip install 'fakeredis[lua]'")


def _embedded(config: Config, url: StoreUrl) -> Connection:
    from session_reuse._store.embedded.handle import EmbeddedServer
    from session_reuse._store.embedded.server import find_server_binary

    server = EmbeddedServer(Path(url.path) if url.path else None)
    find_server_binary()  # a missing binary is an error now, and not at the first enter
    client = _on_socket(str(server.socket_path), _options(config, url))
    return Connection(client, revive=server.ensure_running, release=server.release)
