"""Where Chromium is, and with which flags it is launched."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from typing import TYPE_CHECKING, Final

from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

ENVIRONMENT_VARIABLE: Final = "SESSION_REUSE_CHROMIUM"

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_MACOS_APPLICATIONS: Final = (
    "Chromium.app/Contents/MacOS/Chromium",
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
_OF_PLAYWRIGHT: Final = ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*")
_WITHOUT_WINDOWS: Final = ("chromium_headless_shell-*/chrome-*/*headless[-_]shell",)
"""Of Playwright too, and the last choice: no person can log in with it."""
_QUIET: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
)


def launch_arguments() -> list[str]:
    """Return flags for a Chromium that stays quiet on machines without a network and starts for root in containers."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*_QUIET, "--no-sandbox"] if is_root else list(_QUIET)


def confinement_arguments(allowed_domains: Iterable[str] | None) -> list[str]:
    """Return flags for a Chromium that reaches these hosts only. None stands for no limit.

    Names of other hosts, and their addresses, lead nowhere. WebRTC would ask neither, and a proxy would resolve names itself,
    so both are off. So are extensions.

    Args:
        allowed_domains: as for `reusable_session`.

    Raises:
        ConfigurationError: one of them is no host, or a public suffix.
    """
    if allowed_domains is None:
        return []
    from session_reuse._state.domains import AllowedDomains  # late: the browser of `run` starts before all else

    hosts = [
        host
        for pattern in AllowedDomains(allowed_domains).patterns
        for host in ([pattern, pattern.removeprefix("*.")] if pattern.startswith("*.") else [pattern])
    ]
    shown = [f"[{host}]" if ":" in host else host for host in hosts]
    rules = ["MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in shown)]
    return [
        f"--host-resolver-rules={' , '.join(rules)}",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--no-proxy-server",
        "--disable-quic",
        "--disable-extensions",
    ]


def find_chromium(executable: str | Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Return the path of a Chromium.

    Args:
        executable: a path or a name on PATH that must be used.
        environment: the variables to look in. `os.environ` if not given.

    Raises:
        AdapterError: there is none. The message says how to get one.
    """
    environment = os.environ if environment is None else environment
    if executable:
        return _required(str(executable), "the argument", environment)
    if environment.get(ENVIRONMENT_VARIABLE):
        return _required(environment[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE, environment)
    if found := _from_playwright(environment, _OF_PLAYWRIGHT) or _from_path(environment) or _from_applications():
        return found
    if found := _from_playwright(environment, _WITHOUT_WINDOWS):
        return found
    raise AdapterError(
        "no Chromium found: run `playwright install chromium`, or install the package `chromium` of your system, "
        f"or name one in {ENVIRONMENT_VARIABLE}"
    )


def _required(name: str, origin: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(name, path=environment.get("PATH"))
    if found is None:
        raise AdapterError(f"no executable Chromium at {name}, which {origin} names")
    return found


def _from_playwright(environment: Mapping[str, str], patterns: tuple[str, ...]) -> str | None:
    """Search the folder of `playwright install`, newest revision first."""
    folder = environment.get("PLAYWRIGHT_BROWSERS_PATH")
    if not folder or folder == "0":
        caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
        folder = os.path.join(environment.get("HOME") or os.path.expanduser("~"), caches, "ms-playwright")
    for pattern in patterns:
        found = [path for path in glob.glob(pattern, root_dir=folder) if os.access(os.path.join(folder, path), os.X_OK)]
        if found:
            return os.path.join(folder, max(found, key=_revision))
    return None


def _revision(path: str) -> int:
    numbers = [part.rpartition("-")[2] for part in path.split(os.sep) if part.startswith("chromium")]
    return int(numbers[-1]) if numbers and numbers[-1].isdigit() else 0


def _from_path(environment: Mapping[str, str]) -> str | None:
    found = (shutil.which(name, path=environment.get("PATH")) for name in _NAMES)
    return next((path for path in found if path), None)


def _from_applications() -> str | None:
    if sys.platform != "darwin":
        return None
    folders = ("/Applications", os.path.expanduser("~/Applications"))
    paths = (os.path.join(folder, application) for folder in folders for application in _MACOS_APPLICATIONS)
    return next((path for path in paths if os.access(path, os.X_OK)), None)
