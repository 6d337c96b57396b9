"""Each benchmark runs in its smallest form and says what it promises."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import (
    beside,
    cycles,
    footprint,
    growth,
    links,
    outage,
    overhead,
    processes,
    rivals,
    scorecard,
    states,
    wire,
)

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.redis


def test_cycles_lose_no_session() -> None:
    """All that could be reused is reused, and no one gets another account's state."""
    workload = cycles.Workload(cycles=30, accounts=3, work=0.01)
    tally = asyncio.run(cycles.run(workload, kill=False))
    assert tally.rate_of_reusable == 1.0
    assert not tally.wrong
    assert len(tally.enters) == 30


@pytest.mark.alone("enters take less than 1 s, also those that find the server dead")
def test_cycles_survive_a_killed_server() -> None:
    """With the server killed and started again, nothing is lost and no enter runs over the budget."""
    workload = cycles.Workload(cycles=40, accounts=3, work=0.05, away=0.1)
    tally = asyncio.run(cycles.run(workload, kill=True))
    assert not tally.wrong
    assert not tally.lost
    assert tally.refused <= tally.outcomes.total() - tally.outcomes["reused"]
    assert max(tally.enters) < 1.0


def test_every_contestant_still_works(tmp_path: Path) -> None:
    """A library that has changed its interface is found here, not in the middle of a long run."""
    target = tmp_path / "ratios.json"
    words = [ROOT / "benchmarks/compare.py", "--sizes", "2 KB", "--tasks", "4", "--rounds", "1", "--json", target]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=140, check=False)
    assert target.exists(), done.stderr
    found = json.loads(target.read_text())["results"]["2 KB, 4 tasks"]
    assert {"naive GET+SET", "ours", *rivals.installed_peers()[0]} <= set(found)


@pytest.mark.alone("300 agents at once with the default budgets")
def test_a_crowd_meets_no_error() -> None:
    """Agents that start at once on the default settings are all served and all saved."""
    results, goals = links.burst(quick=True)
    assert results["ours"]["saved"] == 500
    assert all(goal.met for goal in goals)


@pytest.mark.alone("the link takes most of the default budgets")
def test_far_and_slow_stores_are_measured() -> None:
    """Each enter is counted, and those of the plain client beside it."""
    found, goals = links.far(quick=True)
    assert len(found["enters"]) == 2 * 21
    assert goals[0].peer.startswith("redis-py")
    assert len(links.slow(quick=True)[0]["beside"]) == 2 * 20


def test_an_outage_with_reuse_is_measured() -> None:
    """Every session that the process knows is reused while Redis is down, and every save arrives."""
    found, _ = outage.reuse(quick=True)
    assert found["enters"] == {"reused": 20}
    assert found["saves"] == {"arrived": 20}


@pytest.mark.alone("measures microseconds")
def test_overhead_names_every_layer() -> None:
    """A layer that no one measures grows."""
    results, _ = overhead.measure(quick=True, sizes="2 KB")
    assert set(results) == {"layers", "way", "state of 2 KB"}
    assert all(micros > -5 for part in results.values() for micros in part.values())


def test_wire_counts_one_command_for_a_reuse() -> None:
    """An unchanged cycle is one command to enter and one write to leave, and carries no payload to the server."""
    results, _ = wire.measure(quick=True, tasks=4)
    assert results["commands"]["ours, unchanged"] == {"GETEX": 1, "EVALSHA": 1, "SET": 1}
    assert results["costs"]["ours, unchanged"][0]["received"] < 1_000


def test_a_checkout_is_measured_beside_another(tmp_path: Path) -> None:
    """Each process runs the package of its own checkout, and a folder without one is refused."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(ROOT / "session_reuse", other / "session_reuse")
    found, _ = beside.measure(other, quick=True, sizes="2 KB", tasks="2")
    assert 0.2 < statistics.median(this / before for this, before in found["2 KB, 2 tasks"]) < 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="not the package of"):
        beside.measure(tmp_path / "empty", quick=True)


def test_workers_finish_together() -> None:
    """The workers' protocol holds: each says that it is ready, waits for the word, and reports."""
    found, _ = processes.measure(quick=True, workers="2", size="2 KB", tasks=2)
    assert all(rate > 0 for rates in found["2"].values() for rate in rates)


@pytest.mark.parametrize("size", states.SIZES.values())
def test_states_are_seeded_and_of_their_size(size: int) -> None:
    """Two runs measure the same states, of about the size they are called by."""
    state = states.made_state(size)
    assert state == states.made_state(size)
    assert state != states.made_state(size, seed=2)
    assert 0.9 * size < len(json.dumps(state, separators=(",", ":"))) < 1.6 * size


def test_the_scorecard_is_one_command(tmp_path: Path) -> None:
    """It runs from anywhere as a plain file, each row in its own process, and writes goals that were judged."""
    target = tmp_path / "card.json"
    words = [ROOT / "benchmarks/scorecard.py", "--quick", "--only", "layers,outage", "--json", target]
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, timeout=140, check=False
    )
    card = json.loads(target.read_text())
    assert "python benchmarks/scorecard.py --only layers" in done.stdout, done.stderr
    assert set(card["results"]) == {"layers", "outage"}
    assert len(card["goals"]) == 4
    assert all(goal["met"] in {True, False} for goal in card["goals"])


@pytest.mark.parametrize("row", scorecard.ROWS, ids=lambda row: row.name)
def test_every_row_has_a_function(row: scorecard.Row) -> None:
    """A row whose benchmark was renamed is found here, not after half an hour of measuring."""
    module, function = row.place.split(":")
    takes = inspect.signature(getattr(importlib.import_module(f"benchmarks.{module}"), function)).parameters
    assert {"quick", *dict(row.options)} <= set(takes)


@pytest.mark.browser
@pytest.mark.slow
def test_a_row_of_browsers_is_measured() -> None:
    """In its smallest form it starts a real browser, and compares with Playwright."""
    (row,) = (row for row in scorecard.ROWS if row.name == "capture")
    results, _ = row.measure(quick=True)
    assert set(results) >= {"ours", "playwright"}


def test_growth_finds_all_that_has_expired() -> None:
    """It fills its own server, and each size reports restore, clean-up and memory."""
    found, _ = growth.measure(quick=True)
    assert [each["sessions"] for each in found] == [1000, 20_000]
    assert all(each["restore"] > 0 and each["few"] > 0 and each["memory"] > 500 for each in found)


def test_a_list_and_a_start_are_weighed() -> None:
    """The figures of memory and of the list come from their own processes."""
    assert all(sizes[0] > 0 for sizes in footprint.memory(quick=True)[0].values())
    assert footprint.listing(quick=True, sessions=500)[0]["bytes"] > 1e6
