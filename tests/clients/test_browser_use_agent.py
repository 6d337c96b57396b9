"""A real agent of browser-use, with a scripted model: it logs in once, and every later run starts logged in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.clients.site import Site

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]


async def _run(store: Path, site: Site, environment: dict[str, str]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.clients.agents", str(store), site.url("/"), "alice",
        cwd=ROOT, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return json.loads(output.decode().splitlines()[-1])


async def test_second_process_starts_logged_in(site: Site, quiet_agents: dict[str, str], tmp_path: Path) -> None:
    """An agent logs in with the form. A second one, in a new process, sees the account at once and logs in no more."""
    store = tmp_path / "state.json"
    first = await _run(store, site, quiet_agents)
    assert (first["reused"], first["problems"], site.logins) == (False, [], 1)
    second = await _run(store, site, quiet_agents)
    assert (second["reused"], second["problems"], site.logins) == (True, [], 1)
    assert second["steps"] < first["steps"]
