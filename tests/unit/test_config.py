"""Settings: where they come from, and what happens to wrong ones."""

from __future__ import annotations

import base64
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from session_reuse.config import Config, redacted_url
from session_reuse.errors import ConfigurationError

KEY = bytes(range(32))


def test_arguments_win_over_the_environment_and_that_over_defaults() -> None:
    """Argument > environment > default."""
    environment = {"SESSION_REUSE_TTL": "60", "SESSION_REUSE_LANES": "3"}
    config = Config.from_env(environment, lanes=5)
    assert (config.ttl, config.lanes, config.key_prefix) == (60.0, 5, "browser")


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
        ("restore_timeout", float("inf")), ("max_age", 0),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(name: str, value: Any) -> None:
    """The message says which setting is wrong."""
    with pytest.raises(ConfigurationError, match=name):
        Config(**{name: value})


def test_an_unknown_setting_is_told() -> None:
    """A misspelt setting is not silently ignored."""
    with pytest.raises(ConfigurationError, match="tll"):
        Config.from_env({}, tll=1)


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


def test_every_setting_is_described() -> None:
    """Each field has a docstring under it, from which the reference is made."""
    import inspect

    source = inspect.getsource(Config)
    for field in fields(Config):
        after = source.split(f"\n    {field.name}: ", 1)[1].split("\n", 2)
        assert after[1].strip().startswith('"""'), field.name
