"""An agent in Python with Playwright: opens a page over the browser's address, and keeps a value there."""

from __future__ import annotations

import os
import sys

from playwright.sync_api import sync_playwright


def main(url: str, name: str) -> None:
    """Open the page, keep the value, print what the page found."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(os.environ["CDP_URL"])
        page = browser.contexts[0].new_page()
        page.goto(url)
        page.wait_for_function("document.title.startsWith('done')")
        page.evaluate("name => localStorage.setItem(name, 'yes')", name)
        print(page.title())  # noqa: T201
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
