"""Settings: where they come from, and what happens to wrong ones."""

from __future__ import annotations

import base64
import importlib.util
import math
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio

from session_reuse import BrowserSession, SessionManager, blocking, persist_session, reusable_session
from session_reuse._browser.options import Settings
from session_reuse._browser_session import wiring_of
from session_reuse._session.options import ResolvedOptions, SessionOptions
from session_reuse.browsers.cdp import open_chromium, page_shows
from session_reuse.browsers.checks import cookie_alive, text_present
from session_reuse.config import (
    OPTIONS_OF_A_USE,
    Config,
    ConfigOptions,
    configured_keys,
    redacted_url,
    unknown_variables,
)
from session_reuse.errors import ConfigurationError
from session_reuse.testing import MemoryStore

KEY = bytes(range(32))


def test_arguments_win_over_the_environment_and_that_over_defaults() -> None:
    """Argument > environment > default."""
    environment = {"SESSION_REUSE_TTL": "60", "SESSION_REUSE_LANES": "3"}
    config = Config.from_env(environment, lanes=5)
    assert (config.ttl, config.lanes, config.key_prefix) == (60.0, 5, "browser")


def test_the_options_of_a_manager_are_the_fields_of_config() -> None:
    """`ConfigOptions` is what type checkers know of `SessionManager(**config)`: same names, same order, same types."""
    wider = {
        "float": "Seconds",
        "float | None": "Seconds | None",
        "Path | None": "str | os.PathLike[str] | None",
        "KeySource | None": "bytes | str | Iterable[bytes | str] | Callable[[], Iterable[bytes | str]] | None",
    }
    options = {name: each.__forward_arg__ for name, each in ConfigOptions.__annotations__.items()}
    expected = {field.name: wider.get(str(field.type), str(field.type)) for field in fields(Config)}
    assert list(options.items()) == list(expected.items())


def test_durations_may_be_timedeltas() -> None:
    """A day is 86,400 seconds, not zero."""
    assert Config(ttl=timedelta(days=1)).ttl == 86_400.0  # type: ignore[arg-type]
    assert Config(max_age=timedelta(weeks=1)).max_age == 604_800.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TTL", "soon"), ("TTL", "-1"), ("TTL", "nan"), ("LANES", "1.5"), ("LANES", "0"), ("SLIDING", "maybe"),
        ("ENCRYPTION_KEYS", "not a key"), ("ENCRYPTION_KEYS", "YWJj"), ("COMPRESSION", "brotli"), ("URL", "localhost"),
        ("KEY_PREFIX", "a b"), ("MAX_USES", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_variable(variable: str, text: str) -> None:
    """The message says which environment variable to look at, and never quotes a key."""
    with pytest.raises(ConfigurationError, match=f"SESSION_REUSE_{variable}") as caught:
        Config.from_env({f"SESSION_REUSE_{variable}": text})
    if variable == "ENCRYPTION_KEYS":
        assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl", 0), ("ttl", True), ("ttl", "60"), ("pending_max", -1), ("lanes", 2.0), ("max_state_bytes", 0),
        ("encryption_keys", [b"short"]), ("encryption_keys", 7), ("spool_dir", Path("x")), ("url", 6379),
        ("restore_timeout", float("inf")), ("max_age", 0), ("ttl", 1e15), ("max_age", 1e18), ("key_prefix", "a\0"),
        ("key_prefix", "\ud800"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(name: str, value: Any) -> None:
    """The message says which setting is wrong."""
    with pytest.raises(ConfigurationError, match=name):
        Config(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"wait": "5"}, {"wait": None}, {"wait": math.nan}, {"wait": -1}, {"max_age": "1h"}, {"max_age": math.nan},
        {"max_age": math.inf}, {"max_uses": 1.5}, {"max_uses": True}, {"strict": "no"}, {"save_on_error": None},
        {"exclusive": 1},
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(options: Any) -> None:
    """The options of one call are checked like the settings."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ResolvedOptions.build(Config(), {"exclusive": True, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint_after": "1"}, {"checkpoint_after": 0}, {"checkpoint_after": -5}, {"preload_limit": "x"},
        {"database_limit": -1}, {"indexed_db": "no"}, {"opfs": 1}, {"restore_environment": "yes"},
    ],
)  # fmt: skip
def test_a_wrong_option_of_a_browser_is_named(options: Any) -> None:
    """Before the agent works: a checkpoint that cannot be timed would otherwise never be made."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Settings.build(options)


def test_checkpoints_may_be_timed_by_a_timedelta() -> None:
    """As every other duration."""
    assert Settings.build({"checkpoint_after": timedelta(seconds=3)}).checkpoint_after == 3.0
    assert Settings.build({"checkpoint_after": None}).checkpoint_after is None


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda: ResolvedOptions.build(Config(), {"verify": text_present("http://a.example", "in")}), "takes a page"),
        (lambda: ResolvedOptions.build(Config(), {"verify": page_shows("http://a.example", "in")}), "open_chromium"),
        (lambda: Settings.taken_from({}, verify=cookie_alive("sid")), r"pass it to reusable_session\(verify"),
        (lambda: Settings.taken_from({}, verify=True), "function of the page"),  # type: ignore[arg-type]
        (lambda: open_chromium(BrowserSession("a"), verify=text_present("http://a.example", "in")), "open_context"),
    ],
)
def test_a_check_in_the_wrong_place_is_named(give: Any, told: str) -> None:
    """It would raise at each run, and each run would throw the login away."""
    with pytest.raises(ConfigurationError, match=told):
        give()


def test_a_pause_may_be_a_timedelta() -> None:
    """As every other duration. A word is refused, and leaves the session unmarked."""
    session = BrowserSession("a")
    with pytest.raises(ConfigurationError, match="cooldown"):
        session.mark_bad(cooldown="600")  # type: ignore[arg-type]
    assert not wiring_of(session).marked_bad
    session.mark_bad(cooldown=timedelta(minutes=10))
    assert wiring_of(session).cooldown == 600.0


@pytest.mark.parametrize("name", sorted({field.name for field in fields(Config)} - {"registry"}))
def test_no_setting_takes_just_anything(name: str) -> None:
    """Each refuses a value of a wrong type by its name. The registry is checked by who uses it."""
    with pytest.raises(ConfigurationError, match=name):
        Config(**{name: object()})


def test_a_spool_folder_may_be_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of variables, such as those of containers, do not expand a tilde, and a folder `~` is not meant."""
    monkeypatch.setenv("HOME", "/home/agent")
    assert Config(spool_dir="~/spool", encryption_keys=[bytes(32)]).spool_dir == Path("/home/agent/spool")  # type: ignore[arg-type]


@pytest.mark.parametrize("variable", ["SPOOL_DIR", "URL"])
def test_a_home_that_is_not_known_is_named(variable: str) -> None:
    """When the manager is made, and not by a RuntimeError in the agent."""
    folder = {"SPOOL_DIR": "~nobody-here/spool", "URL": "embedded://~nobody-here/redis"}[variable]
    environment = {f"SESSION_REUSE_{variable}": folder, "SESSION_REUSE_ENCRYPTION_KEYS": KEY.hex()}
    with pytest.raises(ConfigurationError, match=f"SESSION_REUSE_{variable}.*no home folder"):
        Config.from_env(environment)


def test_an_asynchronous_on_lost_is_refused() -> None:
    """It would never run."""

    async def on_lost(name: str, why: str) -> None: ...

    class OnLost:
        async def __call__(self, name: str, why: str) -> None: ...

    for asynchronous in (on_lost, OnLost()):
        with pytest.raises(ConfigurationError, match="on_lost"):
            Config(on_lost=asynchronous)  # type: ignore[arg-type]


def test_a_store_and_a_url_are_not_given_together() -> None:
    """One of them would have no effect."""
    with pytest.raises(ConfigurationError, match="not both"):
        SessionManager("redis://one.example", url="redis://two.example")


def test_an_unknown_setting_is_told() -> None:
    """A misspelt setting is not silently ignored."""
    with pytest.raises(ConfigurationError, match="'tll': did you mean ttl"):
        Config.from_env({}, tll=1)


@pytest.mark.parametrize("use", [reusable_session, blocking.reusable_session, persist_session])
def test_a_setting_among_the_options_is_told(use: Any) -> None:
    """And the other way round. Each message has the line to write."""
    with pytest.raises(ConfigurationError, match=r"write manager=SessionManager\(ttl=...\), or set SESSION_REUSE_TTL"):
        use("a", ttl=5)
    with pytest.raises(ConfigurationError, match=r"reusable_session\(fingerprint, exclusive=...\)"):
        SessionManager(exclusive=True)  # type: ignore[call-arg]


def test_the_options_that_are_no_settings_are_known() -> None:
    """`Config` names them without an import of what builds on it."""
    assert SessionOptions.__annotations__.keys() - ConfigOptions.__annotations__.keys() == OPTIONS_OF_A_USE


def test_keys_come_in_base64_from_the_environment() -> None:
    """Several keys, separated by commas, plain or URL-safe base64."""
    text = f"{base64.b64encode(KEY).decode()}, {base64.urlsafe_b64encode(KEY[::-1]).decode().rstrip('=')}"
    assert Config.from_env({"SESSION_REUSE_ENCRYPTION_KEYS": text}).encryption_keys == (KEY, KEY[::-1])
    assert Config(encryption_keys=KEY).encryption_keys == (KEY,)  # type: ignore[arg-type]


def test_the_repr_shows_no_secret() -> None:
    """Neither the URL's password nor a key."""
    config = Config(url="rediss://me:hunter2@host:1/0?password=hunter2", encryption_keys=(KEY,))
    assert "hunter2" not in repr(config)
    assert repr(KEY) not in repr(config)
    assert redacted_url("redis://me:hunter2@h:1/0") == "redis://***@h:1/0"


@pytest.mark.parametrize("source", [[], (), list, lambda: None, lambda: [b"short"]])
def test_keys_that_are_configured_and_missing_do_not_mean_plain(source: Any) -> None:
    """An empty list, or a function that returns no key, is an error and not the absence of encryption."""
    with pytest.raises(ConfigurationError, match="encryption_keys"):
        configured_keys(Config(encryption_keys=source))
    assert configured_keys(Config()) == ()


@pytest.mark.parametrize("keys", [{KEY, KEY[::-1]}, frozenset({KEY, KEY[::-1]}), {KEY: 1, KEY[::-1]: 2}])
def test_keys_are_in_order(keys: Any) -> None:
    """The first one seals, and a set of texts has another first one in each process."""
    with pytest.raises(ConfigurationError, match="in order"):
        Config(encryption_keys=keys)
    assert Config(encryption_keys={KEY}).encryption_keys == (KEY,)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_empty_variable_of_keys_does_not_mean_plain(text: str) -> None:
    """A secret that was mounted empty is told by the variable's name."""
    with pytest.raises(ConfigurationError, match="SESSION_REUSE_ENCRYPTION_KEYS"):
        Config.from_env({"SESSION_REUSE_ENCRYPTION_KEYS": text})


def test_keys_may_be_hex_digits() -> None:
    """64 hex digits are a key. A pass phrase is told how to make one."""
    assert Config(encryption_keys=[KEY.hex(), KEY.hex().upper()]).encryption_keys == (KEY, KEY)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32"):
        Config(encryption_keys=["correct horse battery staple"])  # type: ignore[arg-type]


def test_an_attempt_longer_than_its_budget_is_refused() -> None:
    """attempt_timeout above restore_timeout is a contradiction. The default yields to a shorter budget."""
    with pytest.raises(ConfigurationError, match=r"attempt_timeout.*restore_timeout"):
        Config.from_env({"SESSION_REUSE_ATTEMPT_TIMEOUT": "30"})
    assert Config.from_env({"SESSION_REUSE_ATTEMPT_TIMEOUT": "3"}, restore_timeout=4).attempt_timeout == 3
    assert Config(restore_timeout=0.1).attempt_timeout == 0.1


@pytest.mark.parametrize("options", [{"wait": 1.0}, {"on_busy": "raise"}])
def test_options_of_exclusive_use_need_it(options: SessionOptions) -> None:
    """`wait` and `on_busy` mean nothing for shared use."""
    with pytest.raises(ConfigurationError, match=r"exclusive=True"):
        ResolvedOptions.build(Config(), options)
    ResolvedOptions.build(Config(), {"exclusive": True, **options})


def test_the_options_of_a_session_are_the_fields_of_what_they_come_to() -> None:
    """A type checker accepts what `ResolvedOptions` has, but for two that no caller sets."""
    assert [*SessionOptions.__annotations__, "used_by", "counted_later"] == [
        field.name for field in fields(ResolvedOptions)
    ]


def test_misspelt_variables_are_named_with_the_nearest() -> None:
    """A variable of ours that means nothing is warned of once, and the one that was meant is named."""
    environment = {
        "SESSION_REUSE_TLL": "60", "SESSION_REUSE_REDIS_URL": "redis://h", "SESSION_REUSE_REGISTRY": "x",
        "SESSION_REUSE_CHROMIUM": "/x", "SESSION_REUSE_TTL": "60",
    }  # fmt: skip
    assert unknown_variables(environment) == {
        "SESSION_REUSE_TLL": "SESSION_REUSE_TTL", "SESSION_REUSE_REDIS_URL": "SESSION_REUSE_URL", "SESSION_REUSE_REGISTRY": "",
    }  # fmt: skip
    with pytest.warns(RuntimeWarning, match="SESSION_REUSE_TTLL: did you mean SESSION_REUSE_TTL"):
        Config.from_env({"SESSION_REUSE_TTLL": "60"})
    Config.from_env({"SESSION_REUSE_TTLL": "60"})  # a second warning would be an error here


class ForeignClient:
    """Has what a client has, and is none of redis-py's."""

    connection_pool = None

    def pipeline(self) -> None:
        """Look like a client."""

    async def aclose(self) -> None:
        """Look like a client."""


def lookalikes() -> dict[str, Any]:
    """Return things that look like a client or a store, by what the error says of them."""
    return {
        "not the class Redis: write Redis": redis.asyncio.Redis,
        "not the class MemoryStore": MemoryStore,
        "synchronous": redis.Redis(),
        "ForeignClient": ForeignClient(),
        "not redis.asyncio.client.Pipeline": redis.asyncio.Redis().pipeline(),
        "not redis.asyncio.connection.ConnectionPool": redis.asyncio.ConnectionPool(),
        "not redis.asyncio.sentinel.Sentinel": redis.asyncio.Sentinel([]),
        "decode_responses=False": redis.asyncio.Redis(decode_responses=True),
        "not builtins.int": 6379,
    }


@pytest.mark.parametrize("told", list(lookalikes()))
def test_what_looks_like_a_client_is_refused(told: str) -> None:
    """The error says what was given and what was expected."""
    with pytest.raises(ConfigurationError) as caught:
        SessionManager(lookalikes()[told])
    assert told in str(caught.value)


def test_fakeredis_without_lua_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake server that runs no scripts would refuse every save."""
    SessionManager(fakeredis.FakeAsyncRedis())
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lupa" else find(name))
    with pytest.raises(ConfigurationError, match=r"fakeredis\[lua\]"):
        SessionManager(fakeredis.FakeAsyncRedis())


@pytest.mark.parametrize("manager", ["redis://:hunter2@h", SessionManager, 7])
@pytest.mark.parametrize("use", [reusable_session, blocking.reusable_session, persist_session])
def test_what_is_no_manager_is_refused(use: Any, manager: Any) -> None:
    """The error says what manager= takes, and shows no URL."""
    if use is persist_session and manager == 7:
        manager = "text"
    with pytest.raises(ConfigurationError, match=r"manager= takes a session_reuse.*SessionManager") as caught:
        use("shop", manager=manager)
    assert "hunter2" not in str(caught.value)


def test_the_managers_of_the_two_interfaces_are_told_apart() -> None:
    """A blocking manager in asynchronous code, and the other way round."""
    with pytest.raises(ConfigurationError, match=r"session_reuse.SessionManager"):
        reusable_session("shop", manager=blocking.SessionManager())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"session_reuse.blocking.SessionManager"):
        blocking.reusable_session("shop", manager=SessionManager())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names", [(SessionManager(), "shop"), ("shop", SessionManager()), ("redis://:hunter2@h", "shop")]
)
@pytest.mark.parametrize("use", [reusable_session, blocking.reusable_session])
def test_arguments_in_the_wrong_place_are_told(use: Any, names: Any) -> None:
    """A manager, a client or a URL is no name."""
    with pytest.raises(ConfigurationError, match=r"reusable_session\(fingerprint, agent_id, manager=") as caught:
        use(*names)
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_described() -> None:
    """Each field has a docstring under it, from which the reference is made."""
    import inspect

    source = inspect.getsource(Config)
    for field in fields(Config):
        after = source.split(f"\n    {field.name}: ", 1)[1].split("\n", 2)
        assert after[1].strip().startswith('"""'), field.name
