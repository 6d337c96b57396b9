"""Addresses of pages to open, checked before a browser is started."""

from __future__ import annotations

from urllib.parse import urlsplit

from session_reuse.errors import ConfigurationError


def require_web_address(url: str) -> None:
    """Raise an error for a URL that no browser opens as a page of a site.

    Raises:
        ConfigurationError: it is none.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"url {url!r}: must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ConfigurationError(f"url {url!r}: its host or its port is none")
