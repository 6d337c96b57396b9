"""Ready-made probes for `manager.keep_alive`: each opens a page as the session does, and returns whether it is logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from session_reuse.browsers._web_address import require_no_trouble, require_web_address
from session_reuse.browsers.http_clients import open_httpx_async
from session_reuse.errors import AdapterError, ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from session_reuse._browser_session import BrowserSession
    from session_reuse.browsers.cdp import Chromium
    from session_reuse.browsers.checks import PageCheck

AsyncProbe = Callable[["BrowserSession"], Awaitable[bool]]

__all__ = ["cdp_probe", "http_probe", "page_of", "playwright_probe"]


def page_of(template: str, fingerprint: str) -> str:
    """Return the URL of a session: `{fingerprint}`, and `{site}/{account}` for its parts before and after the first `/`.

    Raises:
        ConfigurationError: the template has another field, or is no address of http or https.
    """
    site, _, account = fingerprint.partition("/")
    try:
        page = template.format(fingerprint=fingerprint, site=site, account=account)
    except (AttributeError, LookupError, ValueError):
        raise ConfigurationError(
            f"url {template!r}: its fields can be {{fingerprint}}, {{site}} and {{account}}"
        ) from None
    require_web_address(page)
    return page


def http_probe(url: str, *, text: str, timeout: float = 30.0) -> AsyncProbe:
    """Get a page with httpx and look for a text that only those who are logged in get.

    Args:
        url: of the page; a template as for `page_of`.
        text: part of the page. An empty text is refused: every page has it.
        timeout: seconds for each step of a request.

    Raises:
        ConfigurationError: the URL or the text is wrong.
        MissingExtraError: httpx is not installed.
    """
    # At once: what a probe raises counts as no answer of the site, and the login would stay unknown.
    page_of(url, "shop.example/alice")
    if not text:
        raise ConfigurationError("text must not be empty: every page has it")
    if find_spec("httpx") is None:
        raise MissingExtraError("http", "http_probe")

    async def probe(session: BrowserSession) -> bool:
        async with open_httpx_async(session, timeout=timeout, follow_redirects=True) as client:
            page = page_of(url, session.fingerprint)
            place = page.partition("?")[0]
            try:
                response = await client.get(page)
            except Exception as error:  # noqa: BLE001  (an error of httpx: its text may hold a header)
                raise AdapterError(f"{place} cannot be reached: {type(error).__name__}") from None
            require_no_trouble(place, response.status_code)
            return response.is_success and text in response.text

    return probe


def playwright_probe(browser: Browser, check: Callable[[str], PageCheck]) -> AsyncProbe:
    """Check a page with a Playwright browser that is open.

    Args:
        browser: a browser of the asynchronous API.
        check: returns a check of `session_reuse.browsers.checks` for a fingerprint.
    """

    async def probe(session: BrowserSession) -> bool:
        from session_reuse.browsers.playwright import open_context

        async with open_context(session, browser) as context:
            # The context closes the page. An error of a close here would take the place of a cancellation.
            return bool(await check(session.fingerprint)(await context.new_page()))

    return probe


def cdp_probe(
    check: Callable[[str], Callable[[Chromium], Awaitable[bool]]], *, headless: bool | None = None
) -> AsyncProbe:
    """Check a page in a Chromium that is started for each probe.

    Args:
        check: returns a check, such as `session_reuse.browsers.cdp.page_shows(...)`, for a fingerprint.
        headless: None for headless where there is no display.
    """

    async def probe(session: BrowserSession) -> bool:
        from session_reuse.browsers.cdp import open_chromium

        async with open_chromium(session, headless=headless) as chromium:
            return bool(await check(session.fingerprint)(chromium))

    return probe
