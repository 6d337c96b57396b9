"""Which sessions are in a browser context, or in an HTTP client, at this moment: it has one set of cookies for all of them."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

from session_reuse._browser_session import wiring_of
from session_reuse._state.domains import AllowedDomains
from session_reuse.errors import LifecycleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse._browser_session import BrowserSession

_lock: Final = threading.Lock()
_claims: Final[dict[object, tuple[object, weakref.ref[BrowserSession]]]] = {}


def claim(place: object, session: BrowserSession) -> Callable[[], None]:
    """Note that a session is in a place, until its `with` ends. Return what ends that earlier.

    Args:
        place: the context or client, compared by equality.
        session: whose cookies are about to enter it.

    Raises:
        LifecycleError: the session of another login is there, whose cookies and storage would become a part of this one.
    """
    key = object()
    with _lock:
        for each, (taken, other) in list(_claims.items()):
            there = other()
            if there is None or wiring_of(there).was_left:
                del _claims[each]
            elif taken == place and _would_mix(there, session):
                raise LifecycleError(
                    f"the session {there.fingerprint!r} is in this browser context or client already, and the two logins "
                    "would be mixed: give each session its own, or disjoint allowed_domains"
                )
        _claims[key] = place, weakref.ref(session)
    return lambda: _claims.pop(key, None) and None


def _would_mix(one: BrowserSession, two: BrowserSession) -> bool:
    if one.fingerprint == two.fingerprint:
        return False
    if one.allowed_domains is None or two.allowed_domains is None:
        return True
    return AllowedDomains(one.allowed_domains).overlaps(AllowedDomains(two.allowed_domains))
