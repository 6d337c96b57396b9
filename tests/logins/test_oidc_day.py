"""A compressed day at an OpenID provider that rotates refresh tokens: no reuse is detected, and no login is lost."""

from __future__ import annotations

import pytest

from tests.agents import npm
from tests.harness.servers import RedisServer
from tests.logins.oidc_day import NAMES, simulate

REASON = npm.missing()


@pytest.mark.skipif(REASON is not None, reason=REASON or "")
def test_killed_keepers_lose_no_login_and_reuse_no_token(redis_server: RedisServer) -> None:
    """24 hours of the provider's clock, 8 agents, 3 keepers, of which 2 are killed. `oidc_day` kills 40."""
    numbers = simulate(redis_server.url)
    assert (numbers["hours"], numbers["alive"]) == (24.0, len(NAMES))
    assert (numbers["reused"], numbers["revoked"], numbers["lost"]) == (0, 0, 0)
    assert numbers["refreshed"] >= 24, "the tokens expire at least once an hour"
