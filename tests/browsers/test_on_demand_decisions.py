"""Who fills an origin, and who waits for it, without a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_reuse.browsers.lazy_restore import filler_page, payloads_of, plan_restore
from session_reuse.browsers.on_demand import FILL_LIMIT, OnDemand, Verdict
from tests.browsers.visits import storing

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = "https://a.example", "https://b.example"


def on_demand(*origins: str, clock: Callable[[], float] = lambda: 0.0) -> OnDemand:
    """Return origins with a token each."""
    entries = [storing(origin, token="T")["origins"][0] for origin in origins]
    return OnDemand(plan_restore(payloads_of(entries)[0], 0).hidden, clock)


def test_an_origin_is_filled_by_one_and_awaited_by_the_others() -> None:
    """The first request fills, later ones wait for it, and afterwards nobody does."""
    origins = on_demand(A)
    assert origins.verdict(A, is_answer=False) is Verdict.FILL
    assert (origins.begin(A), origins.begin(A)) == (origins.filling(A), None)
    assert origins.verdict(A, is_answer=False) is Verdict.WATCH
    assert origins.verdict(A, is_answer=True) is Verdict.HOLD
    assert origins.hold(A, "request")
    assert origins.take(A) is None  # a document of before has committed; the hidden page goes on
    assert origins.filled(A) == ["request"]
    assert origins.verdict(A, is_answer=False) is Verdict.PASS
    assert not origins.hold(A, "late")
    assert origins.open == []


def test_an_origin_that_is_taken_holds_nobody_up() -> None:
    """What travels as a script, or was shown without having been asked about, is not filled later."""
    origins = on_demand(A, B)
    taken = origins.take(A)
    assert taken is not None
    assert (taken.origin, origins.take(A), origins.begin(A)) == (A, None, None)
    assert origins.verdict(A, is_answer=False) is Verdict.PASS
    assert origins.open == [B]


def test_a_hidden_page_that_hangs_is_given_up() -> None:
    """After a time documents go ahead without."""
    now = [0.0]
    origins = on_demand(A, clock=lambda: now[0])
    origins.begin(A)
    assert not origins.is_overdue(A)
    now[0] = FILL_LIMIT + 1
    assert origins.is_overdue(A)


def test_few_bytes_are_shipped_where_the_rest_can_be_filled_on_demand() -> None:
    """What is beyond the limit goes to the hidden page, whatever its size."""
    entries = [storing(f"https://{n}.example", pad="x" * 1000)["origins"][0] for n in range(9)]
    plan = plan_restore(payloads_of(entries)[0], 5000)
    assert (len(plan.lazy), len(plan.hidden)) == (4, 5)


def test_a_filler_page_holds_whatever_a_site_has_stored() -> None:
    """A value that looks like the end of a script is one value among others."""
    page = filler_page(
        plan_restore(payloads_of(storing(A, token="</script><!--")["origins"])[0]).lazy[0], "https://a.example/done?"
    )
    assert page.count("</script>") == 1
    assert "<!--" not in page
