"""Origins of URLs and of stored entries."""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from session_reuse._state.domains import is_public_suffix, registrable_domain

OriginEntry: TypeAlias = dict[str, Any]
"""One item of `storage_state["origins"]`."""
Items: TypeAlias = list[list[str]]
"""Key and value of each item of a web storage."""
DATABASE_SECTIONS: Final = ("indexedDB", "indexedDBRich")
"""Where an entry keeps its databases: in Playwright's form, and in ours."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


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
    """Return the scheme and the registrable domain."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    labels = host.split(".")
    is_alone = ":" in host or all(label.isdigit() for label in labels) or is_public_suffix(host)
    # Browsers take the last label of a name that the list does not know for a suffix.
    return f"{parts.scheme}://{host if is_alone else registrable_domain(host) or '.'.join(labels[-2:])}"


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
