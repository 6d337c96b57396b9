"""Ready-made checks that a restored login is alive, for `verify=`.

Those that look at a page serve `open_context(verify=...)` of the asynchronous and of the synchronous API alike.
`cookie_alive` looks at the session itself and serves `reusable_session(verify=...)`.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from session_reuse._browser.flow import Flow, run_async, run_sync
from session_reuse._settings.values import takes
from session_reuse._state.domains import is_under
from session_reuse._state.storage_state import live_cookies
from session_reuse.browsers._web_address import NO_CONTENT, require_no_trouble
from session_reuse.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from session_reuse._browser_session import BrowserSession

PageCheck: TypeAlias = Callable[[Any], Any]
"""Takes a page. Returns a bool for a synchronous page, an awaitable of one for an asynchronous page."""

_ERRORS_OF_PLAYWRIGHT: Final = frozenset({"Error", "TimeoutError"})
"""By their names: each fork has classes of its own."""
WAIT_MS: Final = 10_000
"""How long a check waits for what it looks for."""


def url_matches(url: str, pattern: str | re.Pattern[str], *, timeout: float = WAIT_MS / 1000) -> PageCheck:
    """Check that a page still has a URL that matches once it has loaded, and was not sent to a login form.

    Args:
        url: the page to open, one that only those who are logged in see.
        pattern: a regular expression, searched in the whole URL that the browser ends up at. A login form may have the page in
            its query, as in `/login?next=/account`, so leave that out: `^[^?]*/account$`.
        timeout: seconds for the page to load.
    """
    expression = re.compile(pattern)
    return _check(
        lambda page: page.goto(url, timeout=timeout * 1000),
        lambda page: bool(expression.search(page.url)),
        waits=False,
    )


def selector_present(url: str, selector: str, *, timeout: float = WAIT_MS / 1000) -> PageCheck:
    """Check that an element is in a page.

    Args:
        url: the page to open.
        selector: any selector of Playwright.
        timeout: seconds to wait for the page, and then for the element.
    """
    return _check(
        lambda page: page.goto(url, timeout=timeout * 1000, wait_until="commit"),
        lambda page: page.wait_for_selector(selector, state="attached", timeout=timeout * 1000),
    )


def text_present(url: str, text: str, *, timeout: float = WAIT_MS / 1000) -> PageCheck:
    """Check that a page shows a text.

    Args:
        url: the page to open.
        text: to be visible, such as the name of the account. Part of a text is enough, case does not matter.
        timeout: seconds to wait for the page, and then for the text.

    Raises:
        ConfigurationError: the text is empty.
    """
    if not text:
        raise ConfigurationError("text must not be empty: every page has it")
    return _check(
        lambda page: page.goto(url, timeout=timeout * 1000, wait_until="commit"),
        lambda page: (
            page.get_by_text(text).filter(visible=True).first.wait_for(state="visible", timeout=timeout * 1000)
        ),
    )


def cookie_alive(name: str, domain: str | None = None) -> Callable[[BrowserSession], bool]:
    """Check that the session has a cookie that has not expired. It costs nothing.

    Args:
        name: of the cookie.
        domain: the cookie's domain, or one above it. Any if not given.
    """

    def check(session: BrowserSession) -> bool:
        cookies = live_cookies(session.storage_state["cookies"], time.time())
        return any(cookie["name"] == name and _is_within(cookie["domain"], domain) for cookie in cookies)

    return takes("session", check)


def _is_within(domain: str, wanted: str | None) -> bool:
    domain, wanted = domain.lstrip(".").lower(), (wanted or "").lstrip(".").lower()
    return not wanted or is_under(domain, wanted)


def _check(go: Callable[[Any], Any], look: Callable[[Any], Any], *, waits: bool = True) -> PageCheck:
    """Return a check of two steps. A page that does not show in time what it should means no. Other errors are raised.

    A site that cannot be reached, or is in trouble, proves nothing about a login: the check raises AdapterError.

    Args:
        go: opens the page. Returns the response.
        look: returns False where the page does not show it.
        waits: whether it waits. Then the page of a site in trouble may give way to the right one.
    """

    def steps(page: Any) -> Flow[bool]:
        seen: list[Any] = []
        page.on("response", lambda response: seen.append(response))  # noqa: PLW0108 (Playwright refuses bound built-ins)
        try:
            response = yield go(page)
        except Exception as error:  # noqa: BLE001  (raised again, but for those of Playwright)
            return _without_a_page(error, seen)
        try:
            is_shown = (yield look(page)) is not False
        except Exception as error:
            if type(error).__name__ != "TimeoutError":
                raise
            is_shown = False
        return _verdict(response, is_shown=is_shown, waits=waits)

    def check(page: Any) -> Any:
        run = run_async if inspect.iscoroutinefunction(page.goto) else run_sync
        return run(steps(page))

    return takes("page", check)


def _verdict(response: Any, *, is_shown: bool, waits: bool) -> bool:
    status = response.status if response is not None else 0
    if not (is_shown and waits):
        require_no_trouble("the site", status)
    return is_shown


def _without_a_page(error: Exception, seen: list[Any]) -> bool:
    """Return the verdict about a page that was not opened, from the responses that were seen. Raise for all but an empty page."""
    if type(error).__name__ not in _ERRORS_OF_PLAYWRIGHT:
        raise error
    if seen and NO_CONTENT in str(error):
        return _verdict(seen[-1], is_shown=False, waits=False)
    why = re.split(r"\n| at ", str(error), maxsplit=1)[0]  # what follows is the URL, with its query
    raise AdapterError(f"the site cannot be reached: {why}") from None
