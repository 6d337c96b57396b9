"""The shape of a storage state: what is accepted, what is refused and how, and what a browser gets to see."""

from __future__ import annotations

import copy
import enum
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from session_reuse import BrowserSession
from session_reuse._state.storage_state import (
    cookie_identity,
    empty_storage_state,
    is_empty,
    live_cookies,
    longest_cookie_life,
    to_playwright,
    validate_storage_state,
)
from session_reuse.errors import InvalidStateError

SECRET = "s3cret-of-a-user"
NOW = 1_800_000_000.0


def cookie(**fields: Any) -> dict[str, Any]:
    """Return a cookie with a secret value."""
    return {"name": "sid", "value": SECRET, "domain": "shop.example", "path": "/", **fields}


def cookies(*entries: Any) -> dict[str, Any]:
    """Return a state of cookies only."""
    return {"cookies": list(entries), "origins": []}


def origin(**sections: Any) -> dict[str, Any]:
    """Return a state of one origin only."""
    return {"cookies": [], "origins": [{"origin": "https://shop.example", **sections}]}


def full_state() -> dict[str, Any]:
    """Return a state with something in every section."""
    return {
        "cookies": [cookie(expires=NOW + 60, httpOnly=True, secure=True, sameSite="Lax")],
        "origins": [
            {
                "origin": "https://shop.example",
                "localStorage": [{"name": "__proto__", "value": "\ud800"}],
                "sessionStorage": [{"name": "constructor", "value": ""}],
                "indexedDB": [{"name": "app", "version": 1, "stores": []}],
                "ours": {"deep": [1]},
            }
        ],
        "session_reuse": {"v": 1, "lost": []},
        "exported_by": "another tool",
    }


RAW_CDP_COOKIE = cookie(
    expires=-1,
    size=19,
    httpOnly=True,
    secure=True,
    session=True,
    priority="Medium",
    sourceScheme="NonSecure",
    sourcePort=80,
    partitionKey={"topLevelSite": "https://portal.example", "hasCrossSiteAncestor": True},
)


def test_a_state_of_ours_survives_validation_untouched() -> None:
    """A whole state comes back as the same object, with nothing added, dropped or copied."""
    state = full_state()
    assert validate_storage_state(state) is state
    assert state == full_state()


@pytest.mark.parametrize("state", [{}, {"cookies": []}, {"origins": []}, empty_storage_state()])
def test_a_state_of_an_older_tool_is_not_refused(state: dict[str, Any]) -> None:
    """Missing sections are filled in place, as empty."""
    assert validate_storage_state(state) is state
    assert state == empty_storage_state()


def test_an_origin_without_local_storage_does_not_break_the_restore() -> None:
    """Playwright refuses an origin without `localStorage`, so it is filled in."""
    assert validate_storage_state(origin())["origins"][0]["localStorage"] == []


def test_raw_cdp_cookies_are_not_refused() -> None:
    """The cookies of browser-use and Selenium, with all that CDP adds, are a valid state."""
    validate_storage_state(cookies(RAW_CDP_COOKIE))


ITEMS: dict[str, list[Any]] = {
    " must be a list, not dict": [{SECRET: 1}],
    "[0] must be a dict, not str": [[SECRET]],
    "[0].name must be a string, and is missing": [[{"value": SECRET}]],
    "[0].name must be a string, not int": [[{"name": 1, "value": SECRET}]],
    "[1].value must be a string, not dict": [[{"name": "a", "value": "b"}, {"name": "c", "value": {SECRET: 1}}]],
}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "storage_state must be a dict, not NoneType"),
        ({"cookies": {SECRET: 1}}, "storage_state.cookies must be a list, not dict"),
        ({"cookies": None}, "storage_state.cookies must be a list, not NoneType"),
        ({"origins": SECRET}, "storage_state.origins must be a list, not str"),
        (cookies(SECRET), "storage_state.cookies[0] must be a dict, not str"),
        (cookies(*[cookie()] * 3, cookie(name=7)), "storage_state.cookies[3].name must be a string, not int"),
        (cookies(cookie(value=None)), "storage_state.cookies[0].value must be a string, not NoneType"),
        (cookies({"name": "a", "value": SECRET}), "storage_state.cookies[0].domain must be a string, and is missing"),
        ({"origins": [[SECRET]]}, "storage_state.origins[0] must be a dict, not list"),
        ({"origins": [{"localStorage": []}]}, "storage_state.origins[0].origin must be a string, and is missing"),
        (
            origin(indexedDB=[{"version": 1}]),
            "storage_state.origins[0].indexedDB[0].name must be a string, and is missing",
        ),
        (origin(indexedDB=SECRET), "storage_state.origins[0].indexedDB must be a list, not str"),
        ({"session_reuse": [SECRET]}, "storage_state.session_reuse must be a dict, not list"),
        *(
            (origin(**{section: items}), f"storage_state.origins[0].{section}{message}")
            for section in ("localStorage", "sessionStorage")
            for message, cases in ITEMS.items()
            for items in cases
        ),
    ],
)
def test_a_wrong_shape_is_refused_at_its_path_without_a_value(state: object, message: str) -> None:
    """The error names the place and the type wanted, and no cookie or storage value reaches a log through it."""
    with pytest.raises(InvalidStateError) as refused:
        validate_storage_state(state)
    assert str(refused.value) == message
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("state.json", "not str: store a file with session-reuse import FILE FINGERPRINT"),
        (Path("state.json"), "Path: store a file with session-reuse import FILE FINGERPRINT"),
        ([cookie()], 'not list: write {"cookies": [...], "origins": []}'),
        (f'{{"{SECRET}": 1}}', "not str: store a file with"),
    ],
)
def test_what_other_tools_take_in_place_of_a_dict_gets_its_own_remedy(state: Any, message: str) -> None:
    """Playwright and browser-use take the path of a file, Selenium a list of cookies. A text may be JSON: no value is shown."""
    with pytest.raises(InvalidStateError) as refused:
        BrowserSession("alice", storage_state=state)
    assert message in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (float("nan"), "is not a finite number"),
        (float("inf"), "is not a finite number"),
        (uuid.UUID(int=5), "is of the type UUID, which JSON cannot hold"),
        (enum.Enum("Colour", "RED")(1), "is of the type Colour, which JSON cannot hold"),
        (10**5000, "is a number of 4,300 digits or more"),
    ],
    ids=["nan", "infinity", "uuid", "enum", "digits"],
)
def test_what_json_would_change_is_refused_as_in_data(value: object, what: str) -> None:
    """It came back as None, or as text. The error names the place, in the state and in the notes."""
    for state, place in (
        (origin(indexedDB=[{"name": "db", "value": value}]), "origins[0].indexedDB[0].value"),
        (origin(ours={"deep": [value]}), "origins[0].ours.deep[0]"),
        (cookies(cookie()) | {"exported": value}, "exported"),
        (cookies(cookie(expires=-1), cookie(expires=value)), "cookies[1].expires"),
    ):
        session = BrowserSession("alice", storage_state=state)
        with pytest.raises(InvalidStateError) as refused:
            session.export()
        assert str(refused.value) == f"storage_state.{place} {what}"
    BrowserSession("alice", storage_state=cookies(cookie(expires="soon"), cookie(expires=None))).export()
    with pytest.raises(InvalidStateError, match=f"data.n {what}"):
        BrowserSession("alice", data={"n": value}).export()


def test_a_deep_database_is_stored() -> None:
    """As deep as the encoder takes it, whoever saves the session."""
    value: list[Any] = []
    for _ in range(230):
        value = [value]
    assert BrowserSession("alice", storage_state=origin(indexedDB=[{"name": "db", "value": value}])).export()


@pytest.mark.alone("measures microseconds")
def test_validation_does_not_slow_down_an_assignment() -> None:
    """Validation stays far below a millisecond for an ordinary state (about 7 µs, measured 2026-11-22)."""
    state = cookies(*(cookie(name=f"c{n}", value="x" * 300) for n in range(40)))
    state["origins"] = [
        {"origin": "https://a", "localStorage": [{"name": f"k{n}", "value": "x" * 200}]} for n in range(40)
    ]

    def seconds() -> float:
        start = time.perf_counter()
        validate_storage_state(state)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(50)) < 0.0005


@pytest.mark.parametrize(
    ("state", "empty"),
    [
        (empty_storage_state(), True),
        (origin(localStorage=[], sessionStorage=[], indexedDB=[]), True),
        ({**empty_storage_state(), "session_reuse": {"v": 1}}, True),
        ({**empty_storage_state(), "session_reuse": {"idb_rich": {"https://a": "{}"}}}, True),  # nothing restores that
        (cookies(cookie()), False),
        (origin(localStorage=[{"name": "a", "value": ""}]), False),
        (origin(localStorage=[], sessionStorage=[{"name": "a", "value": ""}]), False),
        (origin(localStorage=[], indexedDB=[{"name": "a"}]), False),
        (origin(localStorage=[], opfs=[{"path": "a", "type": "file"}]), False),
        (origin(localStorage=[], indexedDBRich=[{"name": "a", "dump": "[]"}]), False),
        ({**empty_storage_state(), "credentials": [{"rpId": "shop.example"}]}, False),
    ],
)
def test_an_empty_capture_is_told_from_a_login_in_any_section(state: dict[str, Any], empty: bool) -> None:
    """Empty is what holds nothing anywhere: a login in one section only must not be taken for a logout."""
    assert is_empty(state) is empty


@pytest.mark.parametrize("expires", [None, 0, -1, -0.5, "2040-01-01", True, float("nan"), [], NOW + 1, 10**400])
def test_a_living_cookie_is_never_dropped_as_expired(expires: Any) -> None:
    """Session cookies, odd expiries and cookies of the future stay."""
    alive = [cookie(expires=expires), cookie()]
    assert live_cookies(alive, NOW) == alive


@pytest.mark.parametrize("expires", [1, NOW - 1, NOW])
def test_an_expired_cookie_is_not_restored(expires: float) -> None:
    """What the browser would drop without a word is dropped before."""
    assert live_cookies([cookie(expires=expires)], NOW) == []


def test_the_life_of_a_login_is_that_of_its_last_cookie() -> None:
    """The httpOnly cookies decide. Dead ones give 0.0, session cookies alone give no answer."""
    state = cookies(
        cookie(name="auth", expires=NOW + 60, httpOnly=True),
        cookie(name="refresh", expires=NOW + 600, httpOnly=True),
        cookie(name="ads", expires=NOW + 6000),
        cookie(name="old", expires=NOW - 5),
        cookie(name="tab", expires=-1, httpOnly=True),
    )
    assert longest_cookie_life(state, NOW) == 600
    dead = cookies(cookie(name="old", expires=NOW - 5, httpOnly=True), cookie(name="ads", expires=NOW + 6000))
    assert longest_cookie_life(dead, NOW) == 0.0
    assert longest_cookie_life(cookies(cookie(name="tab", expires=-1, httpOnly=True)), NOW) is None
    assert longest_cookie_life(empty_storage_state(), NOW) is None


def test_playwright_gets_nothing_it_does_not_know() -> None:
    """Our block, session storage and the keys of other tools are stripped. The state itself is not touched."""
    state, before = full_state(), full_state()
    assert to_playwright(state) == {
        "cookies": before["cookies"],
        "origins": [{key: before["origins"][0][key] for key in ("origin", "localStorage", "indexedDB")}],
    }
    assert state == before


def test_what_newer_playwrights_restore_is_not_stripped() -> None:
    """Passkeys and the origin private file system (Playwright 1.65) reach the new context."""
    files = [{"path": "a", "type": "file"}]
    state = {**origin(localStorage=[], opfs=files), "credentials": [{"rpId": "shop.example"}]}
    assert to_playwright(state) == state


def test_a_raw_cdp_cookie_does_not_fail_the_whole_context() -> None:
    """CDP's extras go, its partition becomes Playwright's two fields, and no SameSite is invented."""
    assert to_playwright(cookies(RAW_CDP_COOKIE))["cookies"] == [
        {
            **cookie(expires=-1, httpOnly=True, secure=True),
            "partitionKey": "https://portal.example",
            "_crHasCrossSiteAncestor": True,
        }
    ]


def test_a_partitioned_cookie_keeps_its_partition() -> None:
    """Playwright's own form passes through unchanged, with or without the ancestor bit."""
    with_bit = cookie(partitionKey="https://a.example", _crHasCrossSiteAncestor=False)
    first, second = to_playwright(cookies(with_bit, cookie(partitionKey="https://a.example")))["cookies"]
    assert (first["partitionKey"], first["_crHasCrossSiteAncestor"]) == ("https://a.example", False)
    assert second["partitionKey"] == "https://a.example"
    assert "_crHasCrossSiteAncestor" not in second


def test_a_cookie_of_an_opaque_partition_does_not_leak_out_of_it() -> None:
    """A cookie whose partition cannot be named is not restored without one, nor mixed up with the unpartitioned one."""
    opaque = cookie(partitionKeyOpaque=True)
    assert to_playwright(cookies(opaque))["cookies"] == []
    assert cookie_identity(opaque) != cookie_identity(cookie())


@pytest.mark.parametrize(
    ("fields", "expires"),
    [
        ({}, -1),
        *(({"expires": odd}, -1) for odd in (None, 0, -0.5, -77, "soon", True, float("nan"), {})),
        *(({"expires": late}, 253_402_300_799) for late in (10**400, float("inf"))),
        ({"expires": 1.5}, 1.5),
    ],
)
def test_an_odd_expiry_does_not_fail_the_whole_context(fields: dict[str, Any], expires: float) -> None:
    """Playwright refuses all cookies for one bad expiry, so each becomes -1 or a second up to the year 9999."""
    assert to_playwright(cookies(cookie(**fields)))["cookies"][0]["expires"] == expires


@pytest.mark.parametrize("same_site", ["no_restriction", "lax", "", None, [], 3])
def test_an_unknown_same_site_does_not_fail_the_whole_context(same_site: Any) -> None:
    """Playwright refuses all cookies for one unknown SameSite, so it is left out."""
    assert "sameSite" not in to_playwright(cookies(cookie(sameSite=same_site)))["cookies"][0]


def test_an_origin_without_anything_does_not_cost_a_visit() -> None:
    """Origins that hold nothing for Playwright are left out."""
    assert to_playwright(origin(localStorage=[], sessionStorage=[{"name": "a", "value": "b"}]))["origins"] == []


def test_changing_playwrights_view_does_not_change_the_state() -> None:
    """Cookies and storage items of the view are copies."""
    state = full_state()
    view = to_playwright(state)
    view["cookies"][0]["value"] = view["origins"][0]["localStorage"][0]["value"] = "changed"
    view["origins"].clear()
    assert state == copy.deepcopy(full_state())
