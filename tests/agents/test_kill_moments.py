"""A few of the random kills. `python -m tests.agents.kill_moments --times 100` makes many."""

from __future__ import annotations

import pytest

from tests.agents.kill_moments import Field, Victim

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_store_that_is_killed_costs_no_login_and_leaves_nothing() -> None:
    """The agent goes on, its last state is stored once the store is back, and the next run reuses it."""
    with Field() as field:
        moment = field.kill(Victim.REDIS, after=0.0)
    assert moment.outcome == "reused"
    assert max(moment.lost) < 60  # seconds; a loaded machine captures late
