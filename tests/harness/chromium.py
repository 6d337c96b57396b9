"""A Chromium whose windows take half of the processor time."""

from __future__ import annotations

import atexit
import os
import shlex
import tempfile
from pathlib import Path
from typing import Final

from session_reuse.browsers.chromium import ENVIRONMENT_VARIABLE, find_chromium
from session_reuse.errors import AdapterError

_PLAIN: Final = "PYTEST_CHROMIUM"
# Two pages of the address bar, for each window: 0.3 of the 0.65 s that a window takes a processor (Chromium 156, 2026-11-26).
_FEATURES: Final = "WebUIOmniboxPopup,WebUIOmniboxAimPopup"
# Chromium obeys the last `--disable-features` only, and clients give a list of their own.
_PROGRAM: Final = """#!/bin/sh
is_listed=
for word do
  shift
  case $word in --disable-features=*) word=$word,{features} is_listed=1 ;; esac
  set -- "$@" "$word"
done
[ -n "$is_listed" ] || set -- "--disable-features={features}" "$@"
exec {chromium} "$@"
"""


def use_light_chromium() -> None:
    """Make the tests, and all programs that they start, find a light Chromium.

    Without a Chromium on this machine nothing changes, and the tests that need one name the remedy.
    """
    if _PLAIN in os.environ:  # a worker of pytest-xdist: it inherits both variables
        return
    try:
        found = find_chromium()
    except AdapterError:
        return
    folder = tempfile.TemporaryDirectory(prefix="sr-chromium-")
    atexit.register(folder.cleanup)
    os.environ[_PLAIN] = found
    os.environ[ENVIRONMENT_VARIABLE] = str(light_chromium(found, Path(folder.name)))


def light_chromium(chromium: str, folder: Path) -> Path:
    """Return a program that starts a Chromium without the pages of its address bar."""
    program = folder / "chromium"
    program.write_text(_PROGRAM.format(features=_FEATURES, chromium=shlex.quote(chromium)))
    program.chmod(0o755)
    return program


def plain_chromium() -> str:
    """Return the Chromium of this machine, as others start it."""
    return os.environ[_PLAIN]
