"""Store URLs: every option has a type, mistakes are named, and a secret is shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster

from session_reuse import SessionManager
from session_reuse._settings.url import OPTIONS, parse_url, redacted_url
from session_reuse._store.redis.connect import connect
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError

SECRET = "CANARY"


def arguments(url: str) -> dict[str, Any]:
    """Return what redis-py connects with."""
    client = connect(Config(url=url)).client
    found = client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs
    return dict(found)


@pytest.mark.parametrize(
    "base",
    [
        "redis://h:1/2",
        "rediss://h:1/2",
        "unix:///s.sock?db=2",
        "redis+sentinel://h,i:7/m/2",
        "redis+cluster://h,[::1]:7",
    ],
)
def test_options_have_the_same_type_for_every_scheme(base: str) -> None:
    """A timeout is a number and a switch a truth value, whichever client the URL leads to."""
    joint = "&" if "?" in base else "?"
    made = arguments(
        f"{base}{joint}socket_timeout=5&socket_connect_timeout=1.5&health_check_interval=30&client_name=a+b"
    )
    assert (made["socket_timeout"], made["socket_connect_timeout"], made["health_check_interval"]) == (5.0, 1.5, 30.0)
    assert made["client_name"] == "a+b"
    assert "cluster" in base or made["db"] == 2
    if not base.startswith("unix"):
        assert arguments(f"{base}{joint}socket_keepalive=no")["socket_keepalive"] is False


@pytest.mark.parametrize(
    "base", ["redis://h/", "unix:///s.sock", "redis+sentinel://h/m", "redis+cluster://h", "embedded://"]
)
@pytest.mark.parametrize(
    "option", ["foo", "decode_responses", "retry_on_timeout", "socket_timeot", "read_from_replicas"]
)
def test_an_unknown_option_is_named_for_every_scheme(base: str, option: str) -> None:
    """No scheme ignores an option, and none hands it on to an error at each connection."""
    with pytest.raises(ConfigurationError, match=option):
        Config(url=f"{base}?{option}=True")


def test_a_folder_with_two_slashes_is_refused() -> None:
    """It would be one in whatever folder the program runs in. `~` and `.` are meant."""
    with pytest.raises(ConfigurationError, match="three slashes: embedded:///path"):
        Config(url="embedded://tmp/x")
    for path in ("", "/tmp/x", "~/x", "./x"):
        assert Config(url=f"embedded://{path}")


def test_sentinels_have_credentials_of_their_own() -> None:
    """Those before the host are for the servers, those in the query for the Sentinels."""
    url = "rediss+sentinel://me:pw@h/m/2?sentinel_username=they&sentinel_password=theirs&max_connections=3"
    pool = connect(Config(url=url)).client.connection_pool
    (sentinel,) = pool.sentinel_manager.sentinels
    theirs, ours = sentinel.connection_pool.connection_kwargs, pool.connection_kwargs
    assert (theirs["username"], theirs["password"], theirs["db"]) == ("they", "theirs", 0)
    assert (ours["username"], ours["password"], ours["db"], pool.max_connections) == ("me", "pw", 2, 3)
    assert "ssl_cert_reqs" in theirs  # both over TLS


def test_a_misspelt_option_gets_the_right_one_named() -> None:
    """The nearest option of the same scheme is suggested."""
    with pytest.raises(ConfigurationError, match="did you mean socket_timeout"):
        Config(url="redis+cluster://h?socket_timeot=5")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://h/abc", "option db must be the number of a database"),
        ("redis://h/-1", "option db"),
        ("redis://h/1?db=2", "option db contradicts"),
        ("redis+sentinel://h/m/abc", "option db"),
        ("redis+sentinel://h/m/1?db=2", "option db"),
        ("redis+cluster://h/3", "one database"),
        ("redis+cluster://h?db=0", "option db"),
        ("redis://:a@h?password=b", "option password contradicts"),
        ("redis://h?socket_timeout=abc", "option socket_timeout must be a positive number of seconds"),
        ("redis://h?socket_timeout=-1", "socket_timeout"),
        ("redis://h?socket_timeout=nan", "socket_timeout"),
        ("redis://h?socket_timeout=", "socket_timeout"),
        ("redis://h?socket_timeout=1&socket_timeout=2", "given twice"),
        ("redis://h?client_name=my%20agents", "client_name must be printable ASCII without blanks"),
        ("redis://h?client_name=agents%0A", "client_name"),
        ("redis://h?client_name=%C3%A9", "client_name"),
        ("redis://h?client_name=", "client_name"),
        ("redis://h?max_connections=0", "max_connections"),
        ("redis://h?protocol=4", "protocol"),
        ("redis+cluster://h?socket_keepalive=maybe", "socket_keepalive must be true or false"),
        ("unix:///s.sock?socket_keepalive=yes", "socket_keepalive means nothing for this scheme"),
        ("redis://h?ssl_ca_certs=/etc/hosts", "ssl_ca_certs needs TLS"),
        ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs must be a file that exists, not /nowhere/ca.pem"),
        (f"rediss://h?ssl_ca_certs=/{'x' * 300}", "ssl_ca_certs must be a file that exists"),
        (f"rediss://h?ssl_ca_path=/{'x' * 300}", "ssl_ca_path must be a folder that exists"),
        ("rediss+sentinel://h/m?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs"),
        ("rediss+cluster://h?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs"),
        ("rediss://h?ssl_keyfile=/etc/hosts", "ssl_certfile"),
        ("rediss://h?ssl_cert_reqs=never", "ssl_cert_reqs must be none, optional or required"),
        ("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=true", "ssl_check_hostname contradicts"),
        ("redis://h:port", "the port a number"),
        ("redis://h:99999", "the port a number"),
        ("redis://", "no host"),
        ("redis://:6379", "no host"),
        ("redis://a,b", "several hosts"),
        ("redis+sentinel://h", "master-name"),
        ("unix://s.sock", "three slashes"),
        ("http://h", "must begin with one of"),
        ("h:6379", "must begin with one of"),
        ("redis://h#x", "unescaped #"),
        ("embedded:///folder?db=1", "option db"),
    ],
)
def test_a_wrong_url_is_refused_when_the_manager_is_made(url: str, named: str) -> None:
    """The error names the option or the part, long before a connection fails."""
    with pytest.raises(ConfigurationError) as caught:
        SessionManager(url, registry=None)
    assert named in str(caught.value)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    """A file that exists and cannot be used is an error at the start, too."""
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    for option in ("ssl_ca_certs", "ssl_certfile"):
        with pytest.raises(ConfigurationError, match=f"option {option}: {wrong}"):
            connect(Config(url=f"rediss://h?{option}={wrong}"))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h:1/0", f"redis://:Zm9v/{SECRET}==@h:1/0", f"redis://me:{SECRET}?x@h:1/0",
        f"redis://me:{SECRET}#x@h:1/0", f"redis://me:a@{SECRET}@h:1/0", f"redis://me:a?{SECRET}@h", f"redis://me:1?{SECRET}@h:1",
        f"redis://me:1#{SECRET}@h:1", f"redis://{SECRET}", f"redis://:{SECRET}", f"redis://me:{SECRET}", f"redis://h:1/0?password={SECRET}",
        f"redis://h:1/0?password=a@{SECRET}", f"redis://h:1/0?password=a@b/{SECRET}", f"redis://h:1?{SECRET}=1",
        f"redis+cluster://me:{SECRET}@h:1,me:{SECRET}2@i:2", f"redis+sentinel://me:a/{SECRET}@h:1,i:2/m/0",
        f"redis+sentinel://h:1/m?sentinel_password={SECRET}", f"unix://:{SECRET}@/a/b.sock", f"unix://:x/{SECRET}@/a/b.sock",
        f"unix:///a/b.sock?password={SECRET}@x", f"http://me:{SECRET}@h", f"me:{SECRET}@h",
    ],
)  # fmt: skip
def test_a_secret_is_shown_nowhere(url: str) -> None:
    """Neither the masked URL, nor the settings, nor the manager, nor an error shows it, however it is written."""
    shown = [] if url == f"redis://{SECRET}" else [redacted_url(url)]  # there it is a host
    try:
        config = Config(url=url)
        shown += [repr(config), repr(SessionManager(url, registry=None)), repr(parse_url(url))]
        connect(config)
    except ConfigurationError as error:
        shown.append(str(error).replace(f"redis://{SECRET}", ""))
    if url == f"redis://{SECRET}":
        shown = [each.replace(f"redis://{SECRET}", "") for each in shown]
    assert not [each for each in shown if SECRET in each]


def test_the_masked_url_still_says_where() -> None:
    """Host, port and path stay, for people to recognise the store."""
    assert redacted_url("redis://me:pw@h:1/0?client_name=x") == "redis://***@h:1/0"
    assert redacted_url("redis://:a/b==@h:1/0") == "redis://***@h:1/0"
    assert redacted_url("redis+cluster://h:1,[::1]:2") == "redis+cluster://h:1,[::1]:2"
    assert redacted_url("embedded:///home/me@work/redis") == "embedded:///home/me@work/redis"


def test_an_unescaped_password_gets_the_remedy() -> None:
    """What stands in the way is said: / ? and # belong percent-encoded."""
    for url in (
        "redis://:Zm9v/x==@h:1/0",
        "redis://me:x?y@h:1/0",
        "redis://me:x#y@h:1/0",
        "redis+cluster://me:x/y@h:1",
    ):
        with pytest.raises(ConfigurationError, match="percent-encode"):
            Config(url=url)
    assert parse_url("redis://:Zm9v%2Fx%3D%3D@h").options["password"] == "Zm9v/x=="
    assert parse_url("redis://me:p@ss@h").options == {"username": "me", "password": "p@ss"}


def test_every_option_is_documented() -> None:
    """The reference names each option of the table."""
    page = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text()
    assert [name for name in OPTIONS if f"`{name}`" not in page] == []
