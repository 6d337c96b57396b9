"""`session-reuse login`: a person logs in, second factor and captcha included, and agents reuse it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from session_reuse._api import reusable_session
from session_reuse._manager import runtime_of
from session_reuse._store.keys import checked
from session_reuse.browsers._web_address import require_web_address
from session_reuse.cli.commands.import_ import STORED
from session_reuse.cli.connection import Place, connected, execute
from session_reuse.cli.formatting import plural, printable
from session_reuse.cli.options import CdpUrl, Fingerprint, argument, option, require_display
from session_reuse.cli.output import CommandFailed, Output, Table
from session_reuse.errors import ConfigurationError, StoreUnavailableError
from session_reuse.outcome import SaveOutcome

if TYPE_CHECKING:
    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.shapes import StorageState

_WHY_NOT: Final = {
    SaveOutcome.SKIPPED: "the browser was left before a login",
    SaveOutcome.STALE: "the session was deleted, or replaced by another login, meanwhile",
}

Page = Annotated[str, argument("PAGE", "The page to log in at.")]
UntilUrl = Annotated[str | None, option("--until-url", "PATTERN", "End at a page with such a URL; * is anything.")]
UntilText = Annotated[str | None, option("--until-text", "TEXT", "End when a page shows this.")]
UntilSelector = Annotated[str | None, option("--until-selector", "CSS", "End when a page has such an element.")]


async def login(
    output: Output,
    place: Place,
    page: Page,
    fingerprint: Fingerprint,
    until_url: UntilUrl = None,
    until_text: UntilText = None,
    until_selector: UntilSelector = None,
    cdp_url: CdpUrl = None,
) -> None:
    """Open a browser with what is stored, let a person log in, and store the login for agents.

    It ends when --until-... holds, when Enter is pressed here, or when the browser is closed. With --until-..., nothing is stored
    before it holds.
    """
    from session_reuse.browsers._manual_login import End, ManualLogin, Until
    from session_reuse.browsers.cdp import attach_cdp, open_chromium

    require_web_address(page)
    checked(fingerprint, "fingerprint")
    if "" in (until_url, until_text, until_selector):  # every page has it, or none
        raise ConfigurationError("--until-url, --until-text and --until-selector must not be empty")
    until = Until(until_url, until_text, until_selector)
    if cdp_url is None:
        require_display()
    async with connected(place) as manager:
        runtime = await runtime_of(manager)
        # Before the browser opens: a person should not log in for a store that is away.
        await execute(runtime, lambda timeout: runtime.store.read(fingerprint, timeout=timeout))
        async with reusable_session(fingerprint, manager=manager, save_on_error=False) as session:
            before = _items(session.storage_state)
            # Without checkpoints: a login page that is open for a while must not replace a good login.
            if cdp_url is None:
                browser = open_chromium(session, headless=False, checkpoint_after=None)
            else:
                browser = attach_cdp(session, cdp_url, checkpoint_after=None)
            async with browser as chromium:
                how = "it ends by itself" if until else "then press Enter here, or close the browser"
                output.note(f"log in; {how}")
                pressed = asyncio.Event()
                with _enter_key(pressed):
                    end = await ManualLogin(session, chromium, until).run(page, pressed)
            is_new = bool(_items(session.storage_state) - before)
            if (until and end is not End.UNTIL) or (end is End.CLOSED and not is_new):
                session.discard()
            else:
                session.mark_good()
    await print_result(output, session, end.value)


async def print_result(output: Output, session: BrowserSession, ended: str) -> None:
    """Print what was captured by site, after the manager was closed.

    Raises:
        CommandFailed: there is no login to store.
        StoreUnavailableError: the store went away before the login was written.
    """
    outcome, sites = await session.settled() or SaveOutcome.SKIPPED, _sites(session.storage_state)
    output.emit({"fingerprint": session.fingerprint, "ended": ended, "outcome": outcome.value, "sites": sites})
    if outcome in _WHY_NOT:
        raise CommandFailed("NoLogin", f"nothing was stored: {_WHY_NOT[outcome]} ({outcome})")
    if outcome is SaveOutcome.SPOOLED:
        raise StoreUnavailableError(
            "the store went away: the login is on disk, and the next process with this spool_dir stores it"
        )
    if outcome not in STORED:
        raise StoreUnavailableError("the store went away before the login was stored: log in again")
    rows = Table("site", "cookies", "storage items", "databases")
    for site, counts in sites.items():
        rows.add_row(site, *(str(count) for count in counts.values()))
    output.show(rows)
    output.show(f"{outcome}: {printable(session.fingerprint)} ({plural(len(sites), 'site')})")


@contextmanager
def _enter_key(pressed: asyncio.Event) -> Iterator[None]:
    """Set the event when a line is entered at the terminal."""
    if not sys.stdin.isatty():
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        sys.stdin.readline()
        pressed.set()

    loop.add_reader(sys.stdin, read)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin)


def _items(state: StorageState) -> set[str]:
    """Return each cookie and each stored item as text, to see what is new."""
    cookies = {json.dumps([each["name"], each["domain"], each["value"]]) for each in state["cookies"]}
    return cookies | {
        json.dumps([entry["origin"], section, item], sort_keys=True, default=str)
        for entry in state["origins"]
        for section, items in entry.items()
        if isinstance(items, list)
        for item in items
    }


def _sites(state: StorageState) -> dict[str, dict[str, int]]:
    """Return how much there is of each host: numbers, never values."""
    counts: dict[str, Counter[str]] = {}
    for cookie in state["cookies"]:
        counts.setdefault(cookie["domain"].lstrip("."), Counter())["cookies"] += 1
    for entry in state["origins"]:
        of_host = counts.setdefault(urlsplit(entry["origin"]).hostname or entry["origin"], Counter())
        of_host["items"] += len(entry.get("localStorage", ())) + len(entry.get("sessionStorage", ()))
        of_host["databases"] += len(entry.get("indexedDB", ())) + len(entry.get("indexedDBRich", ()))
    return {host: {name: counts[host][name] for name in ("cookies", "items", "databases")} for host in sorted(counts)}
