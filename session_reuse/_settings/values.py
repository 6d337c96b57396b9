"""Checks of values for settings, options and arguments alike. Each error names what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from session_reuse.errors import ConfigurationError

Seconds: TypeAlias = float | timedelta
Check = TypeVar("Check", bound=Callable[..., Any])
LONGEST: Final = 100 * 365.25 * 86400.0
"""Longest duration, in seconds. A later end than this does not fit into the times that Redis and our header can hold."""


def seconds(name: str, value: object, *, may_be_zero: bool = False, most: float = LONGEST) -> float:
    """Return a duration in seconds.

    Raises:
        ConfigurationError: it is neither a number nor a timedelta, or out of bounds.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    least = 0.0 if may_be_zero else math.ulp(0.0)
    if not isinstance(number, int | float) or isinstance(number, bool) or not least <= number <= most:
        what = (
            "number of seconds or a timedelta, not negative"
            if may_be_zero
            else "positive number of seconds or a timedelta"
        )
        raise ConfigurationError(
            f"{name} must be a {what}{', up to 100 years' if most == LONGEST else ''}, not {value!r}"
        )
    return float(number)


def whole(name: str, value: object, least: int = 1) -> int:
    """Return a whole number of at least this much.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value


def expanded(path: Path) -> Path:
    """Return a path with `~` replaced.

    Raises:
        ConfigurationError: there is no such user, or no home folder is known.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{path}: there is no home folder for its ~, so write the whole path") from None


def switch(name: str, value: object) -> bool:
    """Return True or False. A word such as "no" is an error, because it counts as true in Python.

    Raises:
        ConfigurationError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {value!r}")
    return value


_TAKES: Final = "_session_reuse_takes"
_TAKEN_BY: Final = {"session": "reusable_session", "page": "open_context", "browser": "open_chromium"}
"""What a check may take, and whose `verify=` passes it."""


def takes(what: str, check: Check) -> Check:
    """Return a ready-made check, marked with what it takes: a key of `_TAKEN_BY`."""
    setattr(check, _TAKES, what)
    return check


def verify_hook(verify: object, takes: str) -> None:
    """Raise for a `verify` that is no function, and for a ready-made check of something else.

    Such a check would raise at each run, which counts as no login.

    Raises:
        ConfigurationError: it is one of them. The message names where the check belongs.
    """
    if verify is None:
        return
    if not callable(verify):
        raise ConfigurationError(f"verify must be a function of the {takes}, not {verify!r}")
    taken = getattr(verify, _TAKES, takes)
    if taken != takes and taken in _TAKEN_BY:
        raise ConfigurationError(f"this check takes a {taken}: pass it to {_TAKEN_BY[taken]}(verify=...)")
