"""The promises hold in 2,000 histories, and the simulator finds faults that are put back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simulation.mutants import MUTANTS, find

SEEDS = 2000
ENOUGH = 5000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_promises_hold_in_2000_histories() -> None:
    """What `oracle.py` says, whatever happens to processes, network and server. A failure prints the shrunk history."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulator_finds_a_fault_that_is_put_back(name: str) -> None:
    """A simulator that finds nothing may look in the wrong place."""
    assert find(name, ENOUGH) is not None, MUTANTS[name].what
