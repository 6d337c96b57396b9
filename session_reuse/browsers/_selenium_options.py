"""How Selenium starts a Chromium of this machine.

Imported by the adapter only, after it has found Selenium to be installed.
"""

from __future__ import annotations

import shutil
from typing import Final

from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from session_reuse.browsers._chromium_process import has_display
from session_reuse.browsers.chromium import find_chromium, launch_arguments

_OWN_DATA: Final = ("--user-data-dir", "user-data-dir")


def default_options() -> Options:
    """Return options for a Chromium that is found on this machine. Headless where there is no display.

    Raises:
        AdapterError: there is none. The message says how to get one.
    """
    options = Options()
    options.binary_location = find_chromium()
    for argument in launch_arguments():
        options.add_argument(argument)
    if not has_display():
        options.add_argument("--headless=new")
    return options


def chromedriver() -> Service | None:
    """Return a service for the chromedriver on PATH. Without one, Selenium's own manager looks for it."""
    path = shutil.which("chromedriver")
    return Service(executable_path=path) if path else None


def starts_empty(options: Options) -> bool:
    """Return whether the browser to come starts without any storage."""
    return not (options.debugger_address or any(argument.startswith(_OWN_DATA) for argument in options.arguments))
