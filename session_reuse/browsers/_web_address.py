"""Addresses that a user has given, checked before a browser is started."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

from session_reuse.errors import AdapterError, ConfigurationError

NO_CONTENT: Final = "ERR_HTTP_RESPONSE_CODE_FAILURE"
"""Chromium's error for a page such as 401 or 503 that is empty. It shows one of its own."""


def parts_of(url: str, *schemes: str) -> SplitResult | None:
    """Return the parts of a URL with one of these schemes, or None if its scheme, its host or its port is none."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the host or the port
        return None
    return parts if is_whole else None


def require_web_address(url: str) -> None:
    """Raise an error for a URL that no browser opens as a page of a site.

    Raises:
        ConfigurationError: it is none.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"page {url!r}: must begin with http:// or https://")
    if parts_of(url, "http", "https") is None:
        raise ConfigurationError(f"page {url!r}: its host or its port is none")


def require_no_trouble(place: str, status: int) -> None:
    """Raise an error for an HTTP status that tells of trouble of the site.

    Raises:
        AdapterError: the status is 429 or 5xx.
    """
    if status == 429 or status >= 500:
        raise AdapterError(f"{place} answered {status}, which proves nothing about the login")
