"""Each benchmark runs in its smallest form and says what it promises."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, cycles, overhead, processes, rivals, states, wire
from tests.harness.servers import RedisServer

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.redis


def test_cycles_lose_no_session() -> None:
    """Whatever could be reused is reused, and nobody gets another account's state."""
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
    found = json.loads(target.read_text())["results"]["ratios to naive"]["2 KB, 4 tasks"]
    assert {"naive GET+SET", "ours", *rivals.installed_rivals()[0]} <= set(found)


@pytest.mark.alone("300 agents at once with the default budgets")
def test_a_crowd_meets_no_error() -> None:
    """Three hundred agents that start at once on the default settings are all served, not told that Redis is away."""
    with RedisServer() as server:
        assert asyncio.run(compare.errors_of(compare.OursByDefault(), server.url, 300)) == 0


@pytest.mark.alone("measures microseconds")
def test_overhead_names_every_layer() -> None:
    """A layer that nobody measures grows."""
    results, _ = overhead.measure(1, ("2 KB",))
    assert set(results) == {"layers", "way", "state of 2 KB"}
    assert all(micros > -5 for part in results.values() for micros in part.values())


def test_wire_counts_one_command_for_a_reuse() -> None:
    """An unchanged cycle is one command to enter and one write to leave, and carries no payload to the server."""
    results, _ = wire.measure("20 KB", 4, 1)
    assert results["commands"]["ours, unchanged"] == {"GETEX": 1, "EVALSHA": 1, "SET": 1}
    assert results["costs"]["ours, unchanged"][0]["received"] < 1_000


def test_workers_finish_together() -> None:
    """The workers' protocol holds: each says that it is ready, waits for the word, and reports."""
    found = processes.measure([2], "2 KB", 2, 2, 1)
    assert all(rate > 0 for rates in found["2"].values() for rate in rates)


@pytest.mark.parametrize("size", states.SIZES.values())
def test_states_are_seeded_and_of_their_size(size: int) -> None:
    """Two runs measure the same states, of about the size they are called by."""
    state = states.made_state(size)
    assert state == states.made_state(size)
    assert state != states.made_state(size, seed=2)
    assert 0.9 * size < len(json.dumps(state, separators=(",", ":"))) < 1.6 * size


def test_the_scorecard_is_one_command(tmp_path: Path) -> None:
    """It runs from anywhere as a plain file, and writes goals that were judged."""
    target, chart = tmp_path / "card.json", tmp_path / "card.png"
    words = [
        sys.executable,
        ROOT / "benchmarks/scorecard.py",
        "--scripts",
        "overhead,missing",
        "--json",
        target,
        "--plot",
        chart,
    ]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=tmp_path, timeout=140, check=False)
    card = json.loads(target.read_text())
    assert "Scorecard" in done.stdout, done.stderr
    assert card["goals"][0]["met"] in {True, False}
    assert card["results"]["missing"] == {"missing": "no such script"}
