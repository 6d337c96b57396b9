"""Which hosts are inside of `allowed_domains`, and which lists are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_reuse import ConfigurationError
from session_reuse._state.domains import AllowedDomains
from tests.logins.states import cookie, origin

HOSTS = ["shop.example", "www.shop.example", "pay.example", "x.pay.example", "mail.example", "notshop.example"]


@pytest.mark.parametrize(
    ("patterns", "host", "inside"),
    [
        (["shop.example"], "shop.example", True),
        (["Shop.Example."], "shop.example", True),
        (["shop.example"], "www.shop.example", False),
        (["shop.example"], "notshop.example", False),
        (["www.shop.example"], "shop.example", False),
        (["*.pay.example"], "pay.example", True),
        (["*.pay.example"], "a.b.pay.example", True),
        (["*.pay.example"], "notpay.example", False),
        (["*.pay.example"], "pay.example.evil.example", False),
        (["bücher.example"], "xn--bcher-kva.example", True),
        (["127.0.0.1"], "127.0.0.1", True),
        (["[::1]"], "::1", True),
        (["0:0:0:0:0:0:0:1"], "::1", True),
        (["localhost"], "localhost", True),
        (["*.localhost"], "shop.localhost", True),
        (["alice.github.io"], "bob.github.io", False),
    ],
)
def test_a_name_is_a_host_and_a_star_adds_its_subdomains(patterns: list[str], host: str, inside: bool) -> None:
    """Cookies and origins follow the same rule."""
    domains = AllowedDomains(patterns)
    shown = f"[{host}]" if ":" in host else host
    assert domains.allow(host) is inside
    assert domains.allow_cookie(cookie(host)) is domains.allow_cookie(cookie(f".{host.upper()}")) is inside
    assert domains.allow_origin(f"https://{shown}:8443") is inside


@pytest.mark.parametrize("pattern", ["github.io", "*.co.uk", "co.uk", "*.com", "com", "*.github.io"])
def test_a_public_suffix_is_refused(pattern: str) -> None:
    """Strangers share what is under it."""
    with pytest.raises(ConfigurationError, match="public suffix"):
        AllowedDomains([pattern])


@pytest.mark.parametrize("pattern", ["", "*", "*.", "https://shop.example", "shop.example/x", "shop.example:80", "*.127.0.0.1", "fe80::1%eth0", "a b", "*.*.shop.example"])  # fmt: skip
def test_what_is_no_host_is_refused(pattern: str) -> None:
    """The message shows what to write."""
    with pytest.raises(ConfigurationError, match=r"write shop\.example"):
        AllowedDomains([pattern])


@pytest.mark.parametrize("pattern", ["straße.example", "*.ς.example", "a\u200db.example"])
def test_a_name_that_browsers_encode_otherwise_is_refused(pattern: str) -> None:
    """Python makes `strasse.example` of the first one, a host of someone else."""
    with pytest.raises(ConfigurationError, match="xn--"):
        AllowedDomains([pattern])


@pytest.mark.parametrize("given", ["shop.example", [], [7]])
def test_a_list_that_means_nothing_is_refused(given: Any) -> None:
    """A single string would be taken for a list of letters."""
    with pytest.raises(ConfigurationError, match="allowed_domains"):
        AllowedDomains(given)


@pytest.mark.parametrize("strange", ["null", "about:blank", "https://[", "chrome-extension://abc", "file://"])
def test_an_origin_without_a_host_is_outside(strange: str) -> None:
    """Nothing of it is handed out."""
    assert not AllowedDomains(["shop.example"]).allow_origin(strange)


def test_of_duplicates_inside_the_change_stays() -> None:
    """Of two stored items of one identity the last one counts: an old one must not come after the change."""

    def document(*values: str) -> Any:
        cookies = [{"name": "sid", "domain": "shop.example", "value": value} for value in values]
        entries = [
            {"origin": "https://shop.example", "localStorage": [{"name": "n", "value": value}]} for value in values
        ]
        return {"fingerprint": "a", "data": {}, "storage_state": {"cookies": cookies, "origins": entries}}

    joined = AllowedDomains(["shop.example"]).join(document("old", "older"), document("new"))
    assert joined == document("new")


states = st.builds(
    lambda cookies, origins: {
        "cookies": list({(each["domain"], each["name"]): each for each in cookies}.values()),
        "origins": list({each["origin"]: each for each in origins}.values()),
    },
    st.lists(st.builds(cookie, st.sampled_from(HOSTS), st.sampled_from("12"), st.sampled_from("ab"))),
    st.lists(st.builds(origin, st.sampled_from([f"https://{host}" for host in HOSTS]), st.sampled_from("12"))),
)


@given(states, states)
def test_what_is_outside_stays_and_what_is_inside_is_replaced(stored: dict[str, Any], mine: dict[str, Any]) -> None:
    """Byte for byte, in its order, whatever is brought along."""
    domains = AllowedDomains(["shop.example", "*.pay.example"])
    old, new = ({"fingerprint": "f", "storage_state": each, "data": {}} for each in (stored, mine))
    joined = domains.join(old, new)
    for section in ("cookies", "origins"):
        inside = domains.allow_cookie if section == "cookies" else lambda each: domains.allow_origin(each["origin"])
        kept = [each for each in joined["storage_state"][section] if not inside(each)]
        assert json.dumps(kept) == json.dumps([each for each in stored[section] if not inside(each)])
        taken = [each for each in joined["storage_state"][section] if inside(each)]
        assert sorted(map(json.dumps, taken)) == sorted(json.dumps(each) for each in mine[section] if inside(each))
    assert domains.join(old, domains.restrict(old)) == old
