"""What a site stores costs no other site its save, whatever kind of storage it fills."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from session_reuse import BrowserSession, ProblemKind, SaveOutcome, reusable_session
from session_reuse._browser.storage.databases import Dump, read_dump
from session_reuse._problem import Problem
from session_reuse._state.document import dump
from session_reuse._state.trim import trim
from session_reuse.browsers.http_clients import open_httpx
from session_reuse.testing import memory_manager

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = "https://a.example", "https://b.example"
LOGIN = {"name": "sid", "value": "S", "domain": "b.example", "path": "/"}


def state(big: Callable[[str], dict[str, Any]], size: int = 0) -> Any:
    """Return a state of two sites, of which one has stored a large value."""
    entries = [{"origin": A, "localStorage": []}, {"origin": B, "localStorage": [{"name": "token", "value": "T"}]}]
    whole: dict[str, Any] = {
        "cookies": [dict(LOGIN)],
        "origins": entries,
        "credentials": [],
        "session_reuse": {"lost": []},
    }
    for place, item in big("x" * size).items():
        holder = next(
            each for each in (whole, whole["session_reuse"], entries[0]) if place in each or each is entries[0]
        )
        holder[place] = [*holder.get(place, []), item]
    return whole


PLACES = {
    "cookies": lambda text: {"cookies": {**LOGIN, "name": "big", "value": text}},
    "credentials": lambda text: {"credentials": {"id": "k", "userHandle": text}},
    "lost": lambda text: {"lost": {"origin": A, "where": "db", "reason": text, "number": 1}},
    "files": lambda text: {"opfs": {"path": "big", "content": text}},
    "sessionStorage": lambda text: {"sessionStorage": {"name": "big", "value": text}},
    "databases": lambda text: {"indexedDBRich": {"name": "big", "version": 1, "dump": text}},
    "escapes": lambda text: {"localStorage": {"name": "\ud800", "value": "\u4e00" * (len(text) // 6)}},
}


@pytest.mark.parametrize("place", PLACES)
def test_the_largest_values_of_the_whole_state_are_left_out(place: str) -> None:
    """The rest fits, and is complete."""
    full = state(PLACES[place], 6000)
    (where,) = trim(full, state(lambda _: {}), 4000)
    assert len(dump(full).data) <= 4000
    assert where.endswith(f" of {A}") == (place not in {"cookies", "credentials", "lost"})
    assert full["origins"][1] == state(lambda _: {})["origins"][1]
    assert full["cookies"] == [LOGIN]


def test_a_site_that_makes_the_document_escaped_costs_the_others_nothing() -> None:
    """One lone surrogate makes all of it larger, so the values count as they are then."""
    full = state(lambda text: {"localStorage": {"name": "\u00fc", "value": "\u00fc" * len(text)}}, 1000)
    full["origins"][1]["sessionStorage"] = [{"name": "odd", "value": "\ud800"}]
    assert trim(full, state(lambda _: {}), 4000) == [f"localStorage of {A}"]


@pytest.mark.parametrize("place", [place for place in PLACES if place not in {"lost", "escapes"}])
def test_a_value_that_is_left_out_keeps_what_is_stored_of_it(place: str) -> None:
    """A smaller one is better than none."""
    full, stored = state(PLACES[place], 6000), state(PLACES[place], 60)
    assert trim(full, stored, 4000)
    assert full == stored


async def test_the_notes_of_the_agent_count() -> None:
    """They share the limit with what the sites store."""
    async with (
        memory_manager(max_state_bytes=100_000) as manager,
        reusable_session("shop/alice", manager=manager) as session,
    ):
        session.data["notes"] = "n" * 40_000
        with open_httpx(session, transport=httpx.MockTransport(many_cookies)) as client:
            client.get("https://a.example/")
    assert session.save_outcome is SaveOutcome.SAVED
    assert {problem.kind for problem in session.problems} == {"too_large"}


def many_cookies(_: httpx.Request) -> httpx.Response:
    """Answer with more cookies than fit beside the notes."""
    return httpx.Response(200, headers=[("Set-Cookie", f"c{index}={'x' * 4000}") for index in range(20)])


def test_names_that_a_site_chooses_are_cut() -> None:
    """A long name of a database fills neither the state nor the problems."""
    name = "n" * 9_000
    text = json.dumps({"databases": [], "lost": [[f"{name}/store", "CryptoKey"]], "names": [name]})
    before = read_dump(A, text)
    (loss,) = Dump([], [], frozenset({name})).over(before, {}).lost  # it was not copied again, and is still lost
    assert len(loss.where) < 1_000
    session = BrowserSession("shop/alice")
    session.report(ProblemKind.RESTORE_FAILED, name, name)
    assert len(session.problems[0].detail) < 2_000


def test_many_problems_cost_no_more_than_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is kept once, and compared with few others."""
    compared = []
    equals = Problem.__eq__
    monkeypatch.setattr(Problem, "__eq__", lambda one, other: compared.append(1) or equals(one, other))
    session = BrowserSession("shop/alice")
    for index in range(400):
        session.report(ProblemKind.LOST, f"database {index % 200}")
    assert len(session.problems) == 200
    assert len(compared) < 1_000
