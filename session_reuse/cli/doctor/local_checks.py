"""Judges this machine's settings: keys, compression, TLS, Chromium. Must never connect to anything."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from session_reuse.browsers.chromium import find_chromium
from session_reuse.cli.connection import Place
from session_reuse.cli.doctor.finding import Finding, fail, ok, warn
from session_reuse.config import Config
from session_reuse.errors import AdapterError, ConfigurationError
from session_reuse.state.compression import compressor
from session_reuse.transfer import codec_for

_HERE: Final = ("", "localhost", "127.0.0.1", "::1")
_NAMES: Final = {"z": "zstd", "l": "lz4", "d": "zlib", "-": "none"}


def settings(place: Place) -> tuple[Config | None, list[Finding]]:
    """Read the settings; where only the keys are wrong, go on without them.

    Returns:
        The settings, None when they cannot be used, and what was wrong.
    """
    try:
        return place.config(), []
    except ConfigurationError as error:
        reason = str(error)
    if "ENCRYPTION_KEYS" in reason.upper():
        remedy = (
            "give 32 random bytes in base64: openssl rand -base64 32; several keys separated by commas, newest first"
        )
        return place.config(encryption_keys=None), [fail("keys", reason, remedy)]
    return None, [fail("settings", reason, "correct that setting")]


def keys(config: Config) -> Finding:
    """Without keys, whoever reads the store can take over the logins."""
    try:
        codec = codec_for(config)
    except ConfigurationError as error:
        return fail("keys", str(error), "install the extra, or correct the setting")
    if config.encryption_keys:
        count = "a callable" if callable(config.encryption_keys) else f"{len(config.encryption_keys)} configured"
        return ok("keys", f"{count}; {codec.key_id} encrypts")
    if is_here(config):
        return ok("keys", "none: sessions are stored in plain, on this machine")
    remedy = "set SESSION_REUSE_ENCRYPTION_KEYS to the output of: openssl rand -base64 32"
    return warn("keys", "none: whoever can read the store can take over the logins", remedy)


def tls(config: Config) -> Finding:
    """Logins should not cross a network in plain."""
    scheme = config.url.partition("://")[0]
    if scheme.startswith("rediss"):
        return ok("tls", "on")
    if is_here(config):
        return ok("tls", "not needed: the store is on this machine")
    return warn("tls", "off: sessions and the password cross the network in plain", "use rediss:// in the URL")


def is_here(config: Config) -> bool:
    """Return whether the URL leads to this very machine."""
    parts = urlsplit(config.url)
    if parts.scheme in {"unix", "embedded"}:
        return True
    hosts = [urlsplit(f"//{part}").hostname or "" for part in parts.netloc.rpartition("@")[2].split(",")]
    return all(host in _HERE for host in hosts)


def compression(config: Config) -> Finding:
    """The standard library's zlib is several times slower than the extra's zstd and lz4."""
    try:
        name = _NAMES.get(compressor(config.compression).flag, config.compression)
    except ConfigurationError as error:
        return fail("compression", str(error), "pip install 'session-reuse[compression]'")
    if name == "zlib" and config.compression == "auto":
        return warn(
            "compression", "zlib: the faster ones are not installed", "pip install 'session-reuse[compression]'"
        )
    return ok("compression", name)


def chromium() -> Finding:
    """Only agents with a browser need one."""
    try:
        return ok("chromium", find_chromium())
    except AdapterError as error:
        return warn("chromium", "none found; only agents with a browser need one", str(error).partition(": ")[2])


def local_findings(config: Config, before: list[Finding]) -> list[Finding]:
    """Return what all checks say of this machine, without those that have spoken already."""
    known = {finding.check for finding in before}
    found = [keys(config), tls(config), compression(config), chromium()]
    return [finding for finding in found if finding.check not in known]
