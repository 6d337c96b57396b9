"""Ten seconds of the soak. By hand it runs for as long as one likes."""

from __future__ import annotations

import asyncio
import logging
import os
import random

import pytest

from tests.chaos.soak import Soak


@pytest.mark.timeout(300)
@pytest.mark.alone("default budgets under random faults")
def test_random_faults_lose_and_mix_up_no_work() -> None:
    """Under a random schedule of faults no confirmed save is lost, no state is another's, nothing is leaked."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    soak = Soak(seed, seconds=8.0, agents=10, faults=(1.0, 2.5))
    asyncio.run(soak.run())
    print(soak)  # noqa: T201  (shown when something fails, with the seed)
    assert not soak.history.wrong
    assert not soak.leaks
    assert not soak.lost
