"""Two logins are never in one browser context or client at the same time."""

from __future__ import annotations

import gc

import httpx
import pytest

from session_reuse import BrowserSession, reusable_session
from session_reuse._browser.claims import claim
from session_reuse.browsers.http_clients import attach_client
from session_reuse.errors import LifecycleError
from session_reuse.testing import memory_manager


def session_of(fingerprint: str, *domains: str) -> BrowserSession:
    """Return a session that holds these hosts, or all of them."""
    session = BrowserSession(fingerprint)
    session.allowed_domains = domains or None
    return session


@pytest.mark.parametrize(
    ("one", "two", "is_refused"),
    [
        ([], [], True),
        (["shop.example"], [], True),
        ([], ["shop.example"], True),
        (["shop.example"], ["shop.example", "pay.example"], True),
        (["*.shop.example"], ["app.shop.example"], True),
        (["*.app.shop.example"], ["*.shop.example"], True),
        (["shop.example"], ["*.app.shop.example"], False),
        (["*.shop.example"], ["*.mail.example"], False),
        (["shop.example"], ["mail.example"], False),
    ],
)
def test_logins_that_share_a_part_share_no_place(one: list[str], two: list[str], *, is_refused: bool) -> None:
    """The first one keeps it. With disjoint parts, both are there."""
    place, alice, bob = object(), session_of("shop/alice", *one), session_of("shop/bob", *two)
    claim(place, alice)
    claim(object(), bob)
    if is_refused:
        with pytest.raises(LifecycleError, match="'shop/alice' is in this browser context"):
            claim(place, bob)
    else:
        claim(place, bob)


def test_clients_of_one_login_share_a_place() -> None:
    """So do two agents that have entered the same login: what they change is merged."""
    place, alice, again = object(), BrowserSession("shop/alice"), BrowserSession("shop/alice")
    claim(place, alice)
    claim(place, alice)
    claim(place, again)


def test_a_place_is_free_when_its_claim_ends_or_its_session_is_gone() -> None:
    """An agent that was dropped without an exit locks no browser for ever."""
    place, alice = object(), BrowserSession("shop/alice")
    claim(place, alice)()
    bob = BrowserSession("shop/bob")
    claim(place, bob)
    del bob
    gc.collect()
    claim(place, alice)


async def test_a_place_is_free_when_the_with_of_its_session_has_ended() -> None:
    """Its browser may never have been left in order."""
    place = object()
    async with memory_manager() as manager:
        async with reusable_session("shop/alice", manager=manager) as alice:
            claim(place, alice)
        claim(place, BrowserSession("shop/bob"))


def test_a_client_serves_one_account_after_the_other() -> None:
    """But not both at once, and the one that was there goes on."""
    with httpx.Client() as client:
        for name in ("alice", "bob"):
            with attach_client(BrowserSession(f"shop/{name}"), client):
                with pytest.raises(LifecycleError), attach_client(BrowserSession("shop/eve"), client):
                    pass
                assert "send" in vars(client)
