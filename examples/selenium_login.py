# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded,selenium]"]
# ///
"""Log in with Selenium once. Every later driver starts logged in.

The site is a small one on loopback (`login_site.py`). Chromium runs headless where there is no display.
"""

from __future__ import annotations

import time

from login_site import LoginSite
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from session_reuse.blocking import reusable_session
from session_reuse.browsers.selenium import open_driver


def visit(site: LoginSite, agent: str) -> None:
    """Run one agent: open the page, and log in if there is a form."""
    began = time.perf_counter()
    with reusable_session("selenium-login/alice", agent_id=agent) as session, open_driver(session) as driver:
        driver.get(site.url)
        if fields := driver.find_elements(By.ID, "user"):
            fields[0].send_keys("alice")
            driver.find_element(By.ID, "submit").click()
        WebDriverWait(driver, 10).until(lambda page: page.find_elements(By.TAG_NAME, "h1"))
        heading = driver.find_element(By.TAG_NAME, "h1").text
        print(f"{agent}: {heading!r} after {time.perf_counter() - began:.2f} s, reused={session.reused}")
    print(f"{agent}: left, {session.save_outcome}")


with LoginSite() as site:
    for name in ("agent-1", "agent-2"):
        visit(site, name)
    print(f"the form was filled in {site.logins} time(s)")
