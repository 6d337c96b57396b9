"""An agent may leave at any moment, whichever client it uses."""

from __future__ import annotations

import pytest

from tests.browsers.leave_moments import DRIVERS
from tests.browsers.sites import serve_sites

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_agent_may_leave_at_any_moment(driver: str) -> None:
    """Nothing that the page knew to be stored 300 ms before is missing, and nothing older replaces it."""
    with serve_sites() as sites:
        assert DRIVERS[driver](sites, 4, 7, 1) == []
