"""Read-only views of what a bound context or an attachment is doing. Tests reach no deeper than this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.harness.probes import captures_of

if TYPE_CHECKING:
    from session_reuse import BrowserSession
    from session_reuse._browser.drivers.connection import CdpConnection
    from session_reuse._browser.follower import Follower
    from session_reuse._browser.storage.mirror import StorageMirror


def mirror_of(bound: Any) -> StorageMirror:
    """Return what we know of the storage of a bound context."""
    return bound.engine.mirror


def follower_of(bound: Any) -> Follower:
    """Return what follows the tabs of a bound context."""
    return bound.engine.follower


def has_scripts(bound: Any) -> bool:
    """Return whether init scripts of ours are registered."""
    return bound.engine.restorer._data is not None


def pending_origins(session: BrowserSession) -> frozenset[str]:
    """Return the origins that are still to be restored, once the scripts say so too."""
    restorer = captures_of(session)[-1].__self__.engine.restorer
    return frozenset() if restorer._is_updating else restorer.scripts.pending


def leftovers(bound: Any) -> tuple[int, int, int]:
    """Return how many flows, pages and readings a bound context holds."""
    return len(bound.driver._tasks), len(bound.driver._pages), len(mirror_of(bound)._readings)


def frames_with_a_session(bound: Any) -> list[Any]:
    """Return the frames in a separate process that are followed."""
    return [frame for followed in bound.driver._pages.values() for frame in followed.frames]


def attachment_of(session: BrowserSession) -> Any:
    """Return what binds a session to a browser over a DevTools connection."""
    bound = captures_of(session)[-1].__self__
    return getattr(bound, "_attachment", bound)


def browser_of(session: BrowserSession) -> Any:
    """Return what an attachment knows of its browser."""
    return attachment_of(session).driver


def connection_of(session: BrowserSession) -> CdpConnection:
    """Return the connection to the browser."""
    return browser_of(session).connection


async def drop_connection(session: BrowserSession) -> None:
    """Close the websocket under the connection."""
    await connection_of(session)._transport.close()


def capture_now(session: BrowserSession) -> Any:
    """Return what a capture of an attachment finds."""
    return captures_of(session)[-1]()


def run_over(session: BrowserSession, method: str, params: dict[str, Any] | None = None) -> Any:
    """Send a DevTools command over the connection of a synchronous attachment."""
    return captures_of(session)[-1].__self__._thread.run(connection_of(session).send(method, params or {}), 5.0)
