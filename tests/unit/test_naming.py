"""How the decorator finds names and where it passes the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse import BrowserSession, ConfigurationError, persist_session
from session_reuse.naming import NameFrom, session_parameter

if TYPE_CHECKING:
    from session_reuse import BrowserSession as Aliased


class Account:
    """Something with attributes and items."""

    name = "alice"

    def __getitem__(self, key: str) -> str:
        return f"item-{key}"


def work(account: Any, site: str = "shop", *rest: str, session: BrowserSession | None = None, **more: int) -> None:
    """Take everything a function can take."""


def test_templates_reach_arguments_defaults_attributes_and_items() -> None:
    """`{account.name}`, `{account[x]}`, positional, by keyword or by default."""
    assert NameFrom("{site}/{account.name}", work, "session")((Account(),), {}) == "shop/alice"
    assert NameFrom("{site}/{account[x]}", work, "session")((Account(), "bank"), {}) == "bank/item-x"
    assert NameFrom("{account}", work, "session")((), {"account": "bob"}) == "bob"
    assert NameFrom("fixed", work, "session")((), {"account": "bob"}) == "fixed"
    assert NameFrom(lambda account: f"<{account}>", work, "session")(("bob",), {}) == "<bob>"
    assert NameFrom(None, work, "session")(("bob",), {}) is None


@pytest.mark.parametrize("template", ["{acount}", "{", "{0}", "{account.name}{nobody}"])
def test_a_wrong_template_is_told_when_decorating(template: str) -> None:
    """Not at three in the morning, in the first call."""
    with pytest.raises(ConfigurationError, match="template"):
        NameFrom(template, work, "session")


def test_the_session_goes_where_it_is_annotated_or_named() -> None:
    """By annotation, also as a string, optional, or imported for type checkers only; else by the name `session`."""

    def annotated(browser: BrowserSession) -> None: ...
    def optional(*, browser: BrowserSession | None = None) -> None: ...
    def aliased(*, browser: Aliased) -> None: ...
    def named(session) -> None: ...
    def other(session: int) -> None: ...
    def without(account: str) -> None: ...

    assert session_parameter(annotated) == "browser"
    assert session_parameter(optional) == "browser"
    assert session_parameter(named) == "session"
    assert session_parameter(other) is None
    assert session_parameter(without) is None
    assert session_parameter(work) == "session"
    assert session_parameter(aliased) is None or session_parameter(aliased) == "browser"


def test_what_cannot_be_wrapped_is_told() -> None:
    """Generators, and decorators in the wrong order."""

    async def steps() -> AsyncIterator[int]:
        yield 1

    def only(session: BrowserSession, /) -> None: ...

    with pytest.raises(ConfigurationError, match="generator"):
        persist_session("a")(steps)
    with pytest.raises(ConfigurationError, match="below"):
        persist_session("a")(staticmethod(work))
    with pytest.raises(ConfigurationError, match="keyword"):
        persist_session("a")(only)
