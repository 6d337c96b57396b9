"""Store URLs: one table of options for all schemes, and a form without secrets."""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from session_reuse._settings.values import expanded
from session_reuse.errors import ConfigurationError

SCHEMES: Final = {
    "redis": "redis", "rediss": "redis", "unix": "unix", "redis+sentinel": "sentinel", "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster", "rediss+cluster": "cluster", "embedded": "embedded",
}  # fmt: skip
"""Each scheme and its kind of store."""
DEFAULT_URL: Final = "embedded://"
DEFAULT_PREFIX: Final = "browser"
WAY_TO_CAUSE: Final = "To find the cause, run: session-reuse doctor"
_NETWORK: Final = ("redis", "sentinel", "cluster")
_SERVERS: Final = (*_NETWORK, "unix")
_ONE_SERVER: Final = ("redis", "sentinel")
_DEFAULT_PORTS: Final = {"redis": 6379, "sentinel": 26379, "cluster": 6379}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_NAME: Final = re.compile(r"[a-z][a-z_]{0,39}")
_SHAPE: Final = re.compile(
    r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?", re.DOTALL
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[^:\[\]\s]+))(?::(?P<port>\d{1,5}))?")


def flag(text: str) -> bool:
    """Return the truth value of a word such as `yes` or `off`."""
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _text_that(is_right: Callable[[str], object], kind: Callable[[str], object] = str) -> Callable[[str], object]:
    """Return a parser of a text that passes a check."""

    def parse(text: str) -> object:
        if not is_right(text):
            raise ValueError
        return kind(text)

    return parse


def _whole(least: int, most: int = 2**31) -> Callable[[str], object]:
    return _text_that(lambda text: text.isascii() and text.isdigit() and least <= int(text) <= most, int)


# A server refuses other names, and the connection with them.
_printable: Final = _text_that(re.compile(r"[!-~]+").fullmatch)
_seconds: Final = _text_that(lambda text: 0 < float(text) < math.inf, float)
_file: Final = _text_that(os.path.isfile)
_CERTIFICATE_CHECKS: Final = ("none", "optional", "required")
_TLS_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class UrlOption(NamedTuple):
    """One option of the query.

    Attributes:
        parse: returns the argument of redis-py with the same name, or raises ValueError.
        value: the end of a message that begins with "must be".
        kinds: kinds of store that accept the option.
        needs_tls: whether the option has an effect over TLS only.
    """

    parse: Callable[[str], object]
    value: str
    kinds: tuple[str, ...] = _SERVERS
    needs_tls: bool = False


OPTIONS: Final[Mapping[str, UrlOption]] = {
    "db": UrlOption(_whole(0), "the number of a database", (*_ONE_SERVER, "unix")),
    "username": UrlOption(str, "text"),
    "password": UrlOption(str, "text"),
    "sentinel_username": UrlOption(str, "text", ("sentinel",)),
    "sentinel_password": UrlOption(str, "text", ("sentinel",)),
    "client_name": UrlOption(_printable, "printable ASCII without blanks"),
    "protocol": UrlOption(_whole(2, 3), "2 or 3"),
    "max_connections": UrlOption(_whole(1), "a whole number of at least 1"),
    "socket_connect_timeout": UrlOption(_seconds, "a positive number of seconds"),
    "socket_timeout": UrlOption(_seconds, "a positive number of seconds"),
    "health_check_interval": UrlOption(_seconds, "a positive number of seconds"),
    "socket_keepalive": UrlOption(flag, "true or false", _NETWORK),
    "ssl_ca_certs": UrlOption(_file, "a file that exists", _NETWORK, needs_tls=True),
    "ssl_ca_path": UrlOption(_text_that(os.path.isdir), "a folder that exists", _ONE_SERVER, needs_tls=True),
    "ssl_certfile": UrlOption(_file, "a file that exists", _NETWORK, needs_tls=True),
    "ssl_keyfile": UrlOption(_file, "a file that exists", _NETWORK, needs_tls=True),
    "ssl_password": UrlOption(str, "text", _ONE_SERVER, needs_tls=True),
    "ssl_cert_reqs": UrlOption(
        _text_that(_CERTIFICATE_CHECKS.__contains__), "none, optional or required", _NETWORK, needs_tls=True
    ),
    "ssl_check_hostname": UrlOption(flag, "true or false", _NETWORK, needs_tls=True),
    "ssl_min_version": UrlOption(
        _text_that(_TLS_VERSIONS.__contains__, _TLS_VERSIONS.__getitem__), "TLSv1.2 or TLSv1.3", _NETWORK, needs_tls=True
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """A store URL in its parts.

    Attributes:
        kind: `redis`, `unix`, `sentinel`, `cluster` or `embedded`.
        tls: whether connections use TLS.
        hosts: addresses. Empty for sockets and private servers.
        path: the unix socket, or the data folder of a private server. Empty for the default folder.
        master: the name of the master that the Sentinels know.
        options: arguments for redis-py, user, password and database included.
    """

    kind: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    master: str
    options: Mapping[str, Any]


def redacted_url(url: str) -> str:
    """Return the URL without user name, password and query, also where the password is not percent-encoded."""
    # An unescaped `/`, `?` or `#` in a password moves the border between the parts of a URL. So everything before the
    # last `@` is masked. With a `?` or `#` before that `@` the secret cannot be located, and only the scheme is shown.
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    before, _, after = rest.rpartition("@")
    if scheme == "embedded" or (scheme == "unix" and rest.startswith("/")):
        before, after = "", rest  # a path, which may hold an @
    shown = re.split(r"[?#]", after, maxsplit=1)[0]
    is_plain = scheme in {"embedded", "unix"} or all(map(_HOST.fullmatch, shown.partition("/")[0].split(",")))
    if "?" in before or "#" in before or not is_plain:
        return f"{scheme}://***"
    return f"{scheme}://{'***@' if before else ''}{shown}"


def store_options(url: str, key_prefix: str = "") -> str:
    """Return what to add to a command of ours, so that it uses this store as the environment does not. Empty if it does."""
    words: list[str] = []
    if (shown := redacted_url(url)) != redacted_url(os.environ.get("SESSION_REUSE_URL", "").strip() or DEFAULT_URL):
        words += "--url", shown
    if key_prefix and key_prefix != (os.environ.get("SESSION_REUSE_KEY_PREFIX", "").strip() or DEFAULT_PREFIX):
        words += "--key-prefix", key_prefix
    return "".join(f" {quote(word)}" for word in words)


def parse_url(url: str) -> StoreUrl:
    """Return the parts of a store URL.

    Raises:
        ConfigurationError: the URL is wrong. The message names the part or the option, and no secret.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        shown = f" {redacted_url(url)}" if separator else ""
        raise ConfigurationError(f"url{shown}: must begin with one of {', '.join(f'{name}://' for name in SCHEMES)}")
    try:
        return _parsed(scheme, rest)
    except ValueError as error:
        raise ConfigurationError(f"url {redacted_url(url)}: {error}") from None


def _parsed(scheme: str, rest: str) -> StoreUrl:
    kind, tls = SCHEMES[scheme], scheme.startswith("rediss")
    shape = _SHAPE.fullmatch(rest)
    assert shape is not None  # noqa: S101  (every text matches)
    authority, path, query = shape["authority"], shape["path"], shape["query"] or ""
    _check_escapes(kind, shape)
    if kind == "embedded":
        _options(kind, query, tls=False)
        folder = unquote(authority + path)
        if authority and not authority.startswith(("~", ".")):
            raise ValueError("a folder's URL has three slashes: embedded:///path/to/folder")
        return StoreUrl(kind, tls=False, hosts=(), path=folder and str(expanded(Path(folder))), master="", options={})
    credentials, _, addresses = authority.rpartition("@")
    options = _merged(_credentials(credentials), _options(kind, query, tls=tls))
    if kind == "unix":
        if addresses or not path:
            raise ValueError("a socket's URL has three slashes: unix:///path/to/redis.sock")
        return StoreUrl(kind, tls=False, hosts=(), path=unquote(path), master="", options=options)
    hosts = _hosts(kind, credentials, addresses)
    master, database = _master_and_database(kind, unquote(path).strip("/"))
    if database:
        options = _merged({"db": _value("db", database)}, options)
    return StoreUrl(kind, tls, hosts, "", master, options)


def _check_escapes(kind: str, shape: re.Match[str]) -> None:
    """Raise for a URL that a reserved character in a password has cut into wrong parts."""
    network = kind in _NETWORK
    later = (shape["path"] if network else "", shape["query"], shape["fragment"])
    if any("@" in (part or "") for part in later):
        raise ValueError("an @ after the host: percent-encode / ? # and @ in a password as %2F %3F %23 and %40")
    if shape["fragment"]:
        raise ValueError("an unescaped #: percent-encode it as %23")


def _credentials(text: str) -> dict[str, Any]:
    user, _, password = text.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _hosts(kind: str, credentials: str, addresses: str) -> tuple[tuple[str, int], ...]:
    if "," in credentials and "@" in credentials:
        raise ValueError("user and password belong once before the first host, or their , and @ percent-encoded")
    if kind == "redis" and "," in addresses:
        raise ValueError("there are several hosts: use redis+cluster:// or redis+sentinel://")
    return tuple(_host(address, _DEFAULT_PORTS[kind]) for address in addresses.split(","))


def _host(address: str, default_port: int) -> tuple[str, int]:
    if not address or address.startswith(":"):
        raise ValueError("there is no host")
    found = _HOST.fullmatch(address)
    if found is None or not 0 < int(found["port"] or default_port) < 65536:
        raise ValueError("a host must look like name:port or [address]:port, the port a number up to 65535")
    return unquote(found["v6"] or found["name"]), int(found["port"] or default_port)


def _master_and_database(kind: str, path: str) -> tuple[str, str]:
    if kind != "sentinel":
        if kind == "cluster" and path not in {"", "0"}:
            raise ValueError("a Cluster has one database, number 0: leave out the path")
        return "", path if kind == "redis" else ""
    master, _, database = path.partition("/")
    if not master:
        raise ValueError("a Sentinel URL ends in /master-name or /master-name/db")
    return master, database


def _options(kind: str, query: str, *, tls: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, _, text = part.partition("=")
        _check_option(kind, name, tls=tls)
        if name in found:
            raise ValueError(f"option {name} is given twice")
        found[name] = _value(name, unquote(text))
    if "ssl_keyfile" in found and "ssl_certfile" not in found:
        raise ValueError("option ssl_keyfile needs ssl_certfile")
    # Python's ssl module refuses to check the host name of a certificate that it does not check.
    if found.get("ssl_cert_reqs") == "none" and found.setdefault("ssl_check_hostname", False):
        raise ValueError("option ssl_check_hostname contradicts ssl_cert_reqs=none")
    return found


def _check_option(kind: str, name: str, *, tls: bool) -> None:
    if name == "decode_responses":
        raise ValueError("option decode_responses cannot be set: sessions are bytes")
    option = OPTIONS.get(name)
    allowed = [each for each, one in OPTIONS.items() if kind in one.kinds and (tls or not one.needs_tls)]
    if option is None:
        shown = name if _NAME.fullmatch(name) else "whose name is no word"  # it may be a part of a password
        near = get_close_matches(name, allowed, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(allowed) or 'none'}"
        raise ValueError(f"unknown option {shown}: {hint}")
    if kind not in option.kinds:
        raise ValueError(f"option {name} means nothing for this scheme: remove it")
    if option.needs_tls and not tls:
        raise ValueError(f"option {name} needs TLS: use the scheme rediss:// or rediss+…")


def _value(name: str, text: str) -> Any:
    option = OPTIONS[name]
    try:
        if not text:
            raise ValueError  # noqa: TRY301
        return option.parse(text)
    except ValueError:
        # Only paths are quoted: any other value may be a part of a password.
        shown = f", not {text}" if name.startswith("ssl_") and name.endswith(("file", "path", "certs")) else ""
        raise ValueError(f"option {name} must be {option.value}{shown}") from None


def _merged(first: dict[str, object], second: dict[str, object]) -> dict[str, Any]:
    for name in first.keys() & second.keys():
        if first[name] != second[name]:
            raise ValueError(f"option {name} contradicts the part before the query")
    return first | second
