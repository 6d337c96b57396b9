"""Origins of URLs and of stored entries."""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

OriginEntry: TypeAlias = dict[str, Any]
"""One item of `storage_state["origins"]`."""
Items: TypeAlias = list[list[str]]
"""Key and value of each item of a web storage."""
DATABASE_SECTIONS: Final = ("indexedDB", "indexedDBRich")
"""Where an entry keeps its databases: in Playwright's form, and in ours."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SECOND_LEVELS: Final = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "mil", "ne", "net", "or", "org"})
"""What stands before the country in public suffixes of two labels, such as `co.uk`. The most frequent."""
_SHARED_DOMAINS: Final = frozenset({
    "appspot.com", "azurewebsites.net", "blogspot.com", "cloudfront.net", "firebaseapp.com", "fly.dev", "github.io", "gitlab.io",
    "herokuapp.com", "myshopify.com", "netlify.app", "onrender.com", "pages.dev", "replit.app", "run.app", "vercel.app",
    "web.app", "workers.dev",
})  # fmt: skip
"""Domains whose subdomains are sites of their own, as the public suffix list has them. The most frequent."""


def origin_of(url: str) -> str | None:
    """Return the origin of a web page as browsers write it, or None when pages of this kind have no storage."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or ""), parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{'' if port in (None, _DEFAULT_PORTS[parts.scheme]) else f':{port}'}"


def storage_key(origin: str) -> str:
    """Return how the debugging protocol names an origin's own, unpartitioned storage."""
    return f"{origin}/"


def origin_of_storage(storage_id: dict[str, Any]) -> str | None:
    """Return the origin of a `DOMStorage.StorageId`, or None for storage that is partitioned under another site."""
    key = storage_id.get("storageKey")
    if not isinstance(key, str):
        return origin_of(str(storage_id.get("securityOrigin")))
    return None if "^" in key else origin_of(key)


def site_of(origin: str) -> str:
    """Return the scheme and the registrable domain, as far as they can be guessed."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    labels = host.split(".")
    if ":" in host or len(labels) < 2 or all(label.isdigit() for label in labels):
        return f"{parts.scheme}://{host}"
    # Guessed, because an init script has no time to ask the browser.
    has_country = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVELS
    is_shared = ".".join(labels[-2:]) in _SHARED_DOMAINS
    return f"{parts.scheme}://{'.'.join(labels[-3 if has_country or is_shared else -2 :])}"


def items_of(entry: OriginEntry, section: str) -> Items:
    """Return a web storage of an origin as pairs of key and value."""
    return [[item["name"], item["value"]] for item in entry.get(section) or ()]


def named(items: dict[str, str]) -> list[dict[str, str]]:
    """Return a web storage as it stands in a storage state."""
    return [{"name": name, "value": value} for name, value in items.items()]


def databases_of(entry: OriginEntry) -> list[dict[str, Any]]:
    """Return the IndexedDB databases of an origin, in Playwright's form and in ours. Malformed ones left out."""
    plain = [database for database in entry.get("indexedDB") or () if isinstance(database.get("stores"), list)]
    rich = [database for database in entry.get("indexedDBRich") or () if isinstance(database.get("dump"), str)]
    return [*plain, *rich]
