"""Check the settings and this machine, without a connection: keys, TLS, compression, the spool, Chromium."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Final

from session_reuse._session.spool.files import folder_for, key_ids_of, others_in
from session_reuse._settings.url import parse_url
from session_reuse._state.compression import NAMES, compressor
from session_reuse._state.sealing import key_id
from session_reuse._stored_form import codec_for
from session_reuse.browsers.chromium import find_chromium
from session_reuse.cli.connection import Place
from session_reuse.cli.doctor.finding import Finding, Status, fail, ok, warn
from session_reuse.cli.formatting import plural
from session_reuse.config import Config, ConfigOptions, configured_keys, unknown_variables
from session_reuse.errors import AdapterError, ConfigurationError

_ALL_RIGHTS: Final = os.R_OK | os.W_OK | os.X_OK
_HERE: Final = ("localhost", "127.0.0.1", "::1")
_INSTALL: Final = "pip install 'session-reuse[compression]'"


def settings(place: Place) -> tuple[Config | None, list[Finding]]:
    """Return the settings, or None if they cannot be used, and the findings about them."""
    findings: list[Finding] = []
    # The rest is checked without wrong keys, and so without the spool, which needs them.
    attempts: tuple[ConfigOptions, ...] = ({}, {"encryption_keys": None, "spool_dir": None})
    for given in attempts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `variables` says the same
                return place.config(**given), findings
        except ConfigurationError as error:
            reason = str(error)
        if "ENCRYPTION_KEYS" not in reason.upper():
            return None, [*findings, fail("settings", reason, "correct that setting")]
        remedy = "set 32 random bytes in base64 (openssl rand -base64 32), or several keys, separated by commas, newest first"
        findings.append(fail("keys", reason, remedy))
    return None, findings


def keys(config: Config) -> Finding:
    """Without keys, every reader of the store can use the logins."""
    try:
        codec = codec_for(config)
    except ConfigurationError as error:
        return fail("keys", str(error), "install the extra, or correct the setting")
    if config.encryption_keys:
        count = "a callable" if callable(config.encryption_keys) else f"{len(config.encryption_keys)} configured"
        return ok("keys", f"{count}, {codec.seal.key_id} encrypts")
    # On this machine, the files of Redis are as safe as a key beside them.
    if is_here(config):
        return ok("keys", "none: sessions are stored in plain, on this machine")
    remedy = "set SESSION_REUSE_ENCRYPTION_KEYS to the output of: openssl rand -base64 32"
    return warn("keys", "none: every reader of the store can use the logins", remedy)


def tls(config: Config) -> Finding:
    """Logins should cross a network encrypted."""
    scheme = config.url.partition("://")[0]
    if scheme.startswith("rediss"):
        return ok("tls", "on")
    if is_here(config):
        return ok("tls", "not needed: the store is on this machine")
    return warn("tls", "off: sessions and the password cross the network in plain", "use rediss:// in the URL")


def is_here(config: Config) -> bool:
    """Return whether the URL leads to this machine."""
    return all(host in _HERE for host, _ in parse_url(config.url).hosts)


def compression(config: Config) -> Finding:
    """The standard library's zlib is several times slower than the extra's zstd and lz4."""
    try:
        name = NAMES[compressor(config.compression).flag]
    except ConfigurationError as error:
        return fail("compression", str(error), _INSTALL)
    if name == "zlib" and config.compression == "auto":
        return warn("compression", "zlib: the faster ones are not installed", _INSTALL)
    return ok("compression", name)


def chromium() -> Finding:
    """Agents with a browser need Chromium."""
    try:
        return ok("chromium", find_chromium())
    except AdapterError as error:
        return warn("chromium", "none found, and only agents with a browser need one", str(error).partition(": ")[2])


def variables() -> Finding:
    """A misspelt variable has no effect."""
    unknown = unknown_variables()
    if not unknown:
        return ok("variables", "every SESSION_REUSE_ variable is known")
    nearest = ", ".join(f"rename {name} to {near}" if near else f"remove {name}" for name, near in unknown.items())
    return warn("variables", f"without effect: {', '.join(unknown)}", nearest)


def spool(config: Config) -> list[Finding]:
    """The next process with the folder and the keys writes the saves that wait on disk."""
    if config.spool_dir is None:
        return []
    root, folder = config.spool_dir, folder_for(config.spool_dir, config.key_prefix)
    try:
        there = [each for each in dict.fromkeys((root, folder)) if each.exists()]
        ours = [each for each in there if each.stat().st_uid == os.geteuid() and os.access(each, _ALL_RIGHTS)]
        foreign = next((each for each in there if each not in ours), None)
        key_ids = key_ids_of(folder) if folder in there and not foreign else []
        others = 0 if foreign else others_in(root, config.key_prefix)
    except OSError as error:
        return [fail("spool", f"{folder}: {error.strerror}", "name a folder of this user in SESSION_REUSE_SPOOL_DIR")]
    if foreign:
        remedy = f"chown it, or name a folder of this user in SESSION_REUSE_SPOOL_DIR: saves are not kept in {folder}"
        return [fail("spool", f"{foreign} belongs to another user, or may not be written", remedy)]
    known = {key_id(key) for key in configured_keys(config)}
    found = _waiting(folder, there, key_ids, known) if folder in there else _new_spool(folder)
    if others and found.status is Status.OK:
        text = f"{found.found}, and {plural(others, 'save')} of another key prefix or an earlier version in {root}"
        return [warn("spool", text, f"move them to {folder} if they were made for this prefix")]
    return [found]


def _new_spool(folder: Path) -> Finding:
    # The spool is made at the first outage: then it would be too late to find out.
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        return fail("spool", f"{folder} cannot be made: {above} may not be written", f"mkdir -m 700 {folder}")
    return ok("spool", f"no save waits, and {folder} is made when one does")


def _waiting(folder: Path, there: list[Path], key_ids: list[str], known: set[str]) -> Finding:
    text = f"{plural(len(key_ids), 'save')} waiting in {folder}"
    unknown = sorted(set(key_ids) - known)
    if unknown:
        remedy = "add the old keys behind the first in SESSION_REUSE_ENCRYPTION_KEYS, or remove these files"
        return fail("spool", f"{text}, some sealed with keys not configured here: {' '.join(unknown)}", remedy)
    if too_open := " ".join(str(each) for each in there if each.stat().st_mode & 0o077):
        return warn("spool", f"{text}, which other users may enter", f"chmod 700 {too_open}")
    return ok("spool", text)


def local_findings(config: Config, before: list[Finding]) -> list[Finding]:
    """Return the findings about this machine, without the checks that are in `before`."""
    known = {finding.check for finding in before}
    found = [keys(config), tls(config), *spool(config), compression(config), chromium()]
    return [finding for finding in found if finding.check not in known]
