"""`session-reuse keep`: look at the stored logins from time to time, so that they live."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer

from session_reuse._settings.url import SCHEMES
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.options import option
from session_reuse.cli.output import Output
from session_reuse.cli.running import logging_to
from session_reuse.config import redacted_url
from session_reuse.errors import ConfigurationError
from session_reuse.outcome import Liveness

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_PAGE: Final = "The page to get. {site} and {account} are the {fingerprint} before and after its first slash."
Page = Annotated[str, option("--url", "PAGE", _PAGE)]
Text = Annotated[str, option("--expect-text", "TEXT", "Part of the page when logged in.")]
Pattern = Annotated[
    str | None, option("--pattern", "PATTERN", "Shell pattern of fingerprints. Needed for a page of one site.")
]
Every = Annotated[str, typer.Option(metavar="TIME", help="Time between two looks, such as 30m, 1h, 2d.")]
Before = Annotated[str | None, option("--before-expiry", "TIME", "Look more often at logins that end so soon.")]
Concurrency = Annotated[int, typer.Option(metavar="NUMBER", help="How many looks at once.")]
Once = Annotated[bool, typer.Option("--once", help="Look at those that are due, and end. Gives 1 if one is dead.")]


async def keep(
    output: Output,
    place: Place,
    page: Page,
    expect_text: Text,
    pattern: Pattern = None,
    every: Every = "1h",
    before_expiry: Before = None,
    concurrency: Concurrency = 4,
    once: Once = False,
) -> ExitCode:
    """Get a page with each stored login from time to time, and note whether it is logged in, until Ctrl-C or SIGTERM.

    Several of these share the work. Each login is looked at under its lease. Cookies that the site renews are saved.
    """
    from session_reuse.browsers.probes import http_probe

    def changed(fingerprint: str, before: Liveness, verdict: Liveness) -> None:
        output.emit({"fingerprint": fingerprint, "before": before.value, "liveness": verdict.value})
        output.show(f"{printable(fingerprint)}: {before.value.upper()} -> {verdict.value.upper()}")

    if (scheme := page.partition("://")[0]) in SCHEMES:  # it may hold a password, which is not repeated
        raise ConfigurationError(f"--url is the page to get: write --store {scheme}://... for the store")
    soon = None if before_expiry is None else seconds(before_expiry, "--before-expiry")
    interval = seconds(every, "--every")
    probe = http_probe(page, text=expect_text)
    if pattern is None and "{" not in page.split("/")[2]:  # it would find the logins of all other sites dead
        raise ConfigurationError(
            "--url is a page of one site: name its logins with --pattern, such as 'shop.example/*'"
        )
    with logging_to():
        async with connected(place) as manager:
            output.note(f"keeping the logins of {redacted_url(manager.config.url)}; Ctrl-C ends it")
            counts = await manager.keep_alive(
                probe, pattern="*" if pattern is None else pattern, every=interval, before_expiry=soon,
                concurrency=concurrency, on_change=changed, once=once,
            )  # fmt: skip
    if not counts:
        output.note("nothing was due: no session matches, or each was looked at within --every")
    output.emit({verdict.value: counts[verdict] for verdict in Liveness})
    output.show(", ".join(f"{counts[verdict]} {verdict.value.upper()}" for verdict in Liveness))
    return ExitCode.WRONG if counts[Liveness.DEAD] else ExitCode.OK


def seconds(text: str, option: str) -> float:
    """Return a length of time such as `90`, `30m` or `1.5h` in seconds.

    Raises:
        ConfigurationError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None or not float(found[1]):
        raise ConfigurationError(f"{option}: {text!r} is no time: write 30s, 15m, 1h or 2d")
    return float(found[1]) * _UNITS[found[2] or "s"]
