"""How the decorator finds names and where it passes the session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_reuse import BrowserSession, ConfigurationError, InvalidFingerprintError, persist_session
from session_reuse._decorator.naming import Name, NameFrom, SessionParameter

if TYPE_CHECKING:
    from session_reuse import BrowserSession as Aliased


class Account:
    """Something with attributes and items."""

    name = "alice"
    nothing = None

    def __getitem__(self, key: str) -> str:
        return f"item-{key}"


def work(account: Any, site: str = "shop", *rest: str, session: BrowserSession | None = None, **more: int) -> None:
    """Take everything a function can take."""


def session_parameter(function: Callable[..., Any]) -> str | None:
    """Return the name of the parameter that takes the session."""
    return SessionParameter(function).name


def name(template: Name, *args: Any, **kwargs: Any) -> str | None:
    """Return the name that a call of `work` gets."""
    return NameFrom(template, work, SessionParameter(work))(args, kwargs)


def pair(tenant: Any, account: Any = None) -> None:
    """Take two values that make a name."""


def name_of_pair(template: str, *args: Any) -> str | None:
    """Return the name that a call of `pair` gets."""
    return NameFrom(template, pair, SessionParameter(pair))(args, {})


def test_templates_reach_arguments_defaults_attributes_and_items() -> None:
    """`{account.name}`, `{account[x]}`, positional, by keyword or by default."""
    assert name("{site}/{account.name}", Account()) == "shop/alice"
    assert name("{site}/{account[x]}", Account(), "bank") == "bank/item-x"
    assert name("{account}", account="bob") == "bob"
    assert name("{account:03d}", 7) == "007"
    assert name("fixed", account="bob") == "fixed"
    assert name(lambda account: f"<{account}>", "bob") == "<bob>"
    assert name(None, "bob") is None


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("template", ["x/{account}", "{account}", "x/{account!s}/{site}"])
def test_a_value_that_names_nobody_gives_no_name(template: str, nothing: Any) -> None:
    """None or an empty string would be the name of all who have none, and their session would be shared by strangers."""
    with pytest.raises(InvalidFingerprintError, match="strangers"):
        name(template, nothing)


@pytest.mark.parametrize("template", ["x/{account}", "{account}"])
def test_an_object_without_a_name_of_its_own_gives_no_name(template: str) -> None:
    """Its address in memory is another one in each process, and that of a stranger in the next."""
    with pytest.raises(InvalidFingerprintError, match="address in memory"):
        name(template, object())


def test_an_attribute_that_is_none_gives_no_name() -> None:
    """The value at the end of the way counts."""
    with pytest.raises(InvalidFingerprintError, match=r"account\.nothing is None"):
        name("x/{account.nothing}", Account())


@pytest.mark.parametrize("template", ["x/{account.name}", "x/{account[nothing]}", "x/{account[site]:%d}"])
def test_arguments_that_a_template_does_not_fit_are_named(template: str) -> None:
    """Not an AttributeError or KeyError out of nowhere."""
    with pytest.raises(InvalidFingerprintError, match=r"x/\{account.*does not fit the arguments"):
        name(template, {"site": "a"})


@pytest.mark.parametrize("wrong", [lambda account: None, lambda account: 7])
def test_a_function_that_returns_no_string_gives_no_name(wrong: Any) -> None:
    """A forgotten `return` is not the agent's last session."""
    with pytest.raises(InvalidFingerprintError, match="must return a str"):
        name(wrong, "bob")


@pytest.mark.parametrize("separator", ["/", ":", "x-y", "/-", "-", ".", "_", "~", "--", " ", "·", ".x_"])
@given(st.data())
def test_two_pairs_of_values_never_give_one_name(separator: str, data: st.DataObject) -> None:
    """`a/b` of `c` and `a` of `b/c` are two tenants, whatever characters their names hold."""
    template = f"{{tenant}}{separator}{{account}}/"
    parts = data.draw(st.lists(st.sampled_from(["a", separator, *separator, *"/%2DF"]), min_size=3, max_size=6))
    first, second = data.draw(st.lists(st.integers(1, len(parts) - 1), min_size=2, max_size=2, unique=True))
    pairs = [("".join(parts[:cut]), "".join(parts[cut:])) for cut in (first, second)]
    # The separator that stands between the values in the one pair belongs to a value of the other.
    pairs += [(pairs[0][0], pairs[0][1] + separator + "b"), (pairs[0][0] + separator + pairs[0][1], "b")]
    assert len({name_of_pair(template, *pair) for pair in pairs}) == len(set(pairs))


def test_values_with_a_slash_are_encoded_beside_other_text_only() -> None:
    """A value that is the whole name stays unchanged: nothing can be mistaken for it."""
    assert name_of_pair("{tenant}/{account}", "a/b", "c%") == "a%2Fb/c%25"
    assert name_of_pair("shop/{tenant}", "a/b") == "shop/a%2Fb"
    assert name_of_pair("{tenant}", "shop.example/alice") == "shop.example/alice"


def test_values_that_would_run_together_are_refused_when_decorating() -> None:
    """`{tenant}{account}` of ("ab", "c") and ("a", "bc") would be one session."""
    for template in ("{tenant}{account}", "{tenant}at{account}"):
        with pytest.raises(ConfigurationError, match="put a / between"):
            persist_session(template)(pair)


def test_templates_reach_what_a_partial_has_bound_by_keyword() -> None:
    """Through several partials. What is bound by position is no parameter any more."""
    bound = partial(partial(work, account="alice"), site="bank")
    assert NameFrom("{site}/{account}", bound, SessionParameter(bound))((), {}) == "bank/alice"
    with pytest.raises(ConfigurationError, match="no parameter 'account'"):
        persist_session("shop/{account}")(partial(work, "alice"))


def test_a_call_that_lacks_an_argument_is_pythons_own_error() -> None:
    """Not a KeyError of the template."""
    with pytest.raises(TypeError, match="account"):
        name("{account}")


@pytest.mark.parametrize("template", ["{acount}", "{", "{0}", "{account.name}{nobody}"])
def test_a_wrong_template_is_told_when_decorating(template: str) -> None:
    """Not at three in the morning, in the first call."""
    with pytest.raises(ConfigurationError, match="template"):
        name(template)


def test_the_session_goes_where_it_is_annotated_or_named() -> None:
    """By annotation, also as a string, optional, or imported for type checkers only. Else by the name `session`."""

    def annotated(browser: BrowserSession) -> None: ...
    def optional(*, browser: BrowserSession | None = None) -> None: ...
    def aliased(*, browser: Aliased) -> None: ...
    def named(session) -> None: ...
    def other(session: int) -> None: ...
    def several(sessions: list[BrowserSession]) -> None: ...
    def without(account: str) -> None: ...

    assert session_parameter(annotated) == "browser"
    assert session_parameter(optional) == "browser"
    assert session_parameter(named) == "session"
    assert session_parameter(other) is None
    assert session_parameter(several) is None
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
