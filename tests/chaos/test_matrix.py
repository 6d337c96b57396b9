"""Every cell of the fault matrix is a test. All are tried in one go, side by side, when the first is asked for."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.chaos.faults import ROWS, Cell
from tests.chaos.matrix import Result, run, table
from tests.conftest import PATIENT_BUDGETS

CELLS = [(row.name, phase) for row in ROWS for phase, cell in row.cells.items() if isinstance(cell, Cell)]
"""Those in which the fault can occur; the others say in `faults.py` why it cannot."""


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], Result]:
    """All cells, tried."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the proxy's cut connections speak up there
    with pytest.MonkeyPatch.context() as environment:  # this fixture is older than the test, and so is its environment
        for name in PATIENT_BUDGETS:
            environment.delenv(name, raising=False)
        found = asyncio.run(run())
    print(table(found))  # noqa: T201  (shown when something fails)
    return {(result.row, result.phase): result for result in found}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("row", "phase"), CELLS, ids=[f"{row}-{phase}" for row, phase in CELLS])
@pytest.mark.alone("default budgets in each cell of the matrix")
def test_no_fault_reaches_the_agent_or_costs_its_work(
    results: dict[tuple[str, str], Result], row: str, phase: str
) -> None:
    """Whatever fails, and whenever: the body runs once, on time, with a right state, and its save is not lost."""
    assert not results[row, phase].wrong
