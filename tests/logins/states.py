"""States with logins at several sites, and the stored state of each."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from session_reuse import BrowserSession
from session_reuse.testing import MemoryStore
from tests.lifecycle.worlds import NAME, stored

SHOP, PAY, MAIL = "shop.example", "pay.example", "mail.example"


def cookie(domain: str, value: str = "first", name: str = "sid", **fields: Any) -> dict[str, Any]:
    """Return a cookie."""
    return {"name": name, "value": value, "domain": domain, "path": "/", "expires": -1, **fields}


def origin(host: str, value: str = "first", **fields: Any) -> dict[str, Any]:
    """Return the storage of an origin, with its keys in their own order and a section of another tool."""
    return {
        "other tool": [1, {"a": None}],
        "localStorage": [{"value": value, "name": "token"}],
        "origin": host,
        **fields,
    }


def state(*sites: str, value: str = "first") -> dict[str, Any]:
    """Return a state that is logged in at these sites."""
    return {
        "cookies": [cookie(site, value) for site in sites],
        "origins": [origin(f"https://{site}", value) for site in sites],
        "session_reuse": {"v": 1, "lost": [{"origin": f"https://{site}", "what": "a Blob"} for site in sites]},
        "credentials": [{"rpId": MAIL}],
    }


def there(memory: MemoryStore, name: str = NAME) -> BrowserSession:
    """Return the stored state."""
    found = stored(memory, name)
    assert found is not None
    return found


def of_site(session: BrowserSession, site: str) -> tuple[list[Any], list[Any]]:
    """Return the cookies and origins of one site."""
    found = session.storage_state
    return (
        [each for each in found["cookies"] if each["domain"].lstrip(".") == site],
        [each for each in found["origins"] if each["origin"] == f"https://{site}"],
    )


def sites_of(session: BrowserSession) -> set[str]:
    """Return the hosts that a session holds cookies or storage of."""
    found = session.storage_state
    hosts = {urlsplit(each["origin"]).hostname or "" for each in found["origins"]}
    return hosts | {each["domain"].lstrip(".") for each in found["cookies"]}
