"""`session-reuse cleanup`: run the clean-up job as a separate process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.formatting import duration, plural, printable
from session_reuse.cli.output import Output
from session_reuse.cli.running import logging_to
from session_reuse.config import ConfigOptions, redacted_url
from session_reuse.errors import ConfigurationError

Once = Annotated[bool, typer.Option("--once", help="Do one pass and end.")]
Configure = Annotated[
    bool, typer.Option("--configure-notifications", help="Set the server's notify-keyspace-events if it lacks events.")
]


async def cleanup(output: Output, place: Place, once: Once = False, configure_notifications: Configure = False) -> None:
    """Remove the traces of expired sessions, until Ctrl-C or SIGTERM. Several such commands share the work."""
    if once and configure_notifications:
        raise ConfigurationError("one pass needs no notifications: leave --once or --configure-notifications out")
    if once:
        async with connected(place) as manager:
            report = await manager.cleanup_once()
        output.emit(asdict(report))
        lag = f", the oldest {duration(report.overdue)} over its deadline" if report.overdue else ""
        output.show(f"{plural(report.expired, 'expired session')} cleaned up, {report.prolonged} prolonged{lag}")
        return

    def expired(fingerprint: str) -> None:
        output.emit({"expired": fingerprint})
        # Expirations are rare: without a flush, a pipe would hold the lines back for hours.
        output.show(f"expired: {printable(fingerprint)}")

    settings: ConfigOptions = {"on_expired": expired}
    if configure_notifications:
        settings["configure_notifications"] = True
    with logging_to():
        async with connected(place, **settings) as manager:
            output.note(f"cleaning up {redacted_url(manager.config.url)}; Ctrl-C ends it")
            await manager.cleanup()
