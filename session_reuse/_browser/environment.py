"""What sites see of the browser besides its storage: recorded, offered at restore, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from session_reuse._state.shapes import StorageState

Environment: TypeAlias = dict[str, Any]
"""`user_agent`, `locale`, `timezone` as strings, `viewport` as `{"width", "height"}`. Each may be missing."""

_OPTIONS: Final = {"user_agent": "user_agent", "locale": "locale", "timezone": "timezone_id", "viewport": "viewport"}
"""Our name -> Playwright's option of `new_context`."""


def recorded(state: StorageState) -> Environment:
    """Return the environment that a storage state was captured in. What is malformed is left out."""
    block = state.get("session_reuse")
    environment = block.get("environment") if isinstance(block, dict) else None
    if not isinstance(environment, dict):
        return {}
    return {name: environment[name] for name in _OPTIONS if _is_well_formed(name, environment.get(name))}


def context_options(environment: Environment, given: dict[str, Any]) -> dict[str, Any]:
    """Return options for `new_context` that bring an environment back, without those that the caller has given."""
    options = {option: environment[name] for name, option in _OPTIONS.items() if name in environment}
    if given.get("no_viewport"):
        options.pop("viewport", None)
    return {option: value for option, value in options.items() if option not in given}


def changed(before: Environment, now: Environment) -> list[str]:
    """Return the names of settings that are known of both and differ."""
    return [name for name in _OPTIONS if name in before and name in now and before[name] != now[name]]


def _is_well_formed(name: str, value: object) -> bool:
    if name != "viewport":
        return isinstance(value, str) and bool(value)
    sides = [value.get("width"), value.get("height")] if isinstance(value, dict) else [None]
    return all(type(each) is int and each > 0 for each in sides)
