"""HTTP clients: a session's cookies go out where a browser would send them, and what a server changes comes back."""

from __future__ import annotations

import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
import requests

from session_reuse import BrowserSession
from session_reuse.browsers import http_clients
from session_reuse.browsers._cookie_jar import BoundJar, jar_cookie
from session_reuse.errors import MissingExtraError
from tests.harness.probes import captures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.clients.keeper import StubKeeper
    from tests.clients.site import Site

    Opener = Callable[[BrowserSession], AbstractContextManager[Any]]


@contextmanager
def _httpx(session: BrowserSession) -> Iterator[httpx.Client]:
    with http_clients.open_httpx(session, follow_redirects=True) as client:
        yield client


@contextmanager
def _httpx2(session: BrowserSession) -> Iterator[Any]:
    with http_clients.open_httpx2(session, follow_redirects=True) as client:
        yield client


@pytest.fixture(params=[_httpx, _httpx2, http_clients.open_requests], ids=["httpx", "httpx2", "requests"])
def open_client(request: pytest.FixtureRequest) -> Opener:
    """Return a function that opens one of the synchronous clients."""
    return request.param


def cookie(name: str, value: str = "1", domain: str = "shop.localhost", **fields: Any) -> dict[str, Any]:
    """Return a cookie as it stands in a storage state."""
    plain = {"name": name, "value": value, "domain": domain, "path": "/", "expires": -1}
    return {**plain, "httpOnly": False, "secure": False, "sameSite": "Lax", **fields}


def names(header: str) -> set[str]:
    """Return the names in a Cookie header."""
    return {pair.partition("=")[0] for pair in header.split("; ") if pair}


def stored_cookie(session: BrowserSession, name: str) -> dict[str, Any] | None:
    """Return the cookie of a name in the session."""
    return next((cookie for cookie in session.storage_state["cookies"] if cookie["name"] == name), None)


async def test_login_is_reused_by_the_next_client(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """A login made over HTTP is there for the next client, with its flags."""
    first = keeper.enter()
    with open_client(first) as client:
        assert "Welcome" in client.post(site.url("/login"), data={"user": "alice"}).text
    await keeper.leave(first)
    second = keeper.enter()
    with open_client(second) as client:
        assert client.get(site.url("/me")).json() == {"user": "alice"}
    assert site.logins == 1
    sid = stored_cookie(second, "sid")
    assert sid is not None
    assert (sid["domain"], sid["httpOnly"], sid["sameSite"], sid["expires"]) == ("shop.localhost", True, "Lax", -1)


async def test_async_clients_reuse_it_too(keeper: StubKeeper, site: Site) -> None:
    """The asynchronous clients of httpx and httpx2 restore and capture as the others do."""
    first = keeper.enter()
    async with http_clients.open_httpx_async(first, follow_redirects=True) as client:
        await client.post(site.url("/login"), data={"user": "alice"})
    await keeper.leave(first)
    async with http_clients.open_httpx2_async(keeper.enter()) as other:
        assert (await other.get(site.url("/me"))).json() == {"user": "alice"}


async def test_logout_propagates(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """A cookie that the server deletes is deleted from the session, and nothing else is."""
    site.sessions["s1"] = "alice"
    keeper.stored = {"cookies": [cookie("sid", "s1"), cookie("theme")], "origins": []}
    session = keeper.enter()
    with open_client(session) as client:
        client.get(site.url("/logout"))
    await keeper.leave(session)
    assert [c["name"] for c in keeper.stored["cookies"]] == ["theme"]


async def test_browser_only_state_survives(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """Web storage, partitioned cookies and the flags and kind of known cookies outlive a visit over HTTP."""
    later = int(time.time()) + 1000
    partitioned = cookie("embed", secure=True, sameSite="None", partitionKey="https://top.example")
    keeper.stored = {
        "cookies": [
            partitioned,
            cookie("kept", httpOnly=True, sameSite="Strict", expires=later + 0.5, priority="High"),
        ],
        "origins": [{"origin": site.origin(), "localStorage": [{"name": "token", "value": "t"}]}],
        "session_reuse": {"v": 1},
    }
    session, before = keeper.enter(), keeper.stored
    with open_client(session) as client:
        client.get(site.url("/set?cookie=kept=2;Max-Age=50"))
    kept = stored_cookie(session, "kept")
    assert kept is not None
    assert (kept["value"], kept["httpOnly"], kept["sameSite"], kept["priority"]) == ("2", True, "Strict", "High")
    assert 0 < kept["expires"] < later
    assert stored_cookie(session, "embed") == partitioned
    assert session.storage_state["origins"] == before["origins"]
    assert session.storage_state["session_reuse"] == {"v": 1}


async def test_untouched_cookies_are_unchanged(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """A visit that changes nothing leaves a state that is equal to the restored one."""
    keeper.stored = {
        "cookies": [cookie("a", expires=time.time() + 99.5), cookie("b", domain=".localhost")],
        "origins": [],
    }
    session = keeper.enter()
    with open_client(session) as client:
        client.get(site.url("/blank"))
    assert session.storage_state == keeper.stored


def test_host_only_cookies_stay_with_their_host(open_client: Opener, session: BrowserSession, site: Site) -> None:
    """A cookie without a domain attribute is not sent to a subdomain, one with it is."""
    session.storage_state["cookies"] = [cookie("host"), cookie("wide", domain=".shop.localhost")]
    with open_client(session) as client:
        client.get(site.url("/blank"))
        client.get(site.url("/blank", host="evil.shop"))
    assert [names(header) for _, header in site.seen_cookies] == [{"host", "wide"}, {"wide"}]


def test_paths_and_expiry_are_respected(open_client: Opener, session: BrowserSession, site: Site) -> None:
    """A cookie goes to its path and below it only, and a dead one goes nowhere."""
    dead = cookie("dead", expires=time.time() - 5)
    session.storage_state["cookies"] = [cookie("deep", path="/a/b"), cookie("all"), dead]
    with open_client(session) as client:
        for path in ("/a/b/c", "/a/bc", "/"):
            client.get(site.url(path))
    assert [names(header) for _, header in site.seen_cookies] == [{"deep", "all"}, {"all"}, {"all"}]


def test_secure_cookies_need_a_trusted_channel(open_client: Opener, session: BrowserSession, site: Site) -> None:
    """A Secure cookie goes over plain HTTP to loopback, as in Chromium, and to no other host."""
    session.storage_state["cookies"] = [
        cookie("__Host-id", secure=True),
        cookie("id", domain="shop.test", secure=True),
        cookie("plain", domain="shop.test"),
    ]
    with open_client(session) as client:
        client.get(site.url("/blank"))
        proxy = site.origin().replace("shop.localhost", "127.0.0.1")
        _get_through(client, proxy, "http://shop.test/blank", session)
    assert [names(header) for _, header in site.seen_cookies] == [{"__Host-id"}, {"plain"}]


def _get_through(client: Any, proxy: str, url: str, session: BrowserSession) -> None:
    if isinstance(client, requests.Session):
        client.get(url, proxies={"http": proxy})
        return
    kind = http_clients.open_httpx if isinstance(client, httpx.Client) else http_clients.open_httpx2
    with kind(session, proxy=proxy) as proxied:
        proxied.get(url)


def test_redirects_to_another_host_carry_its_cookies_only(
    open_client: Opener, session: BrowserSession, site: Site
) -> None:
    """After a redirect the cookies of the new host go out, not those of the first."""
    session.storage_state["cookies"] = [cookie("a"), cookie("b", domain="other.localhost")]
    with open_client(session) as client:
        client.get(site.url("/to-other", host="shop"))
    assert [(host, names(header)) for host, header in site.seen_cookies] == [("shop", {"a"}), ("other", {"b"})]


def test_hosts_without_a_dot_keep_their_name(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """A cookie of `localhost` is filed under `localhost`, not under the name that Python's jar invents."""
    session = keeper.enter()
    url = site.url("/set?cookie=sid=9").replace("shop.localhost", "localhost")
    with open_client(session) as client:
        client.get(url)
        client.get(url)
    assert [(c["name"], c["domain"]) for c in session.storage_state["cookies"]] == [("sid", "localhost")]
    assert site.seen_cookies[1][1] == "sid=9"


def test_an_ipv6_host_gets_its_cookies(session: BrowserSession) -> None:
    """Browsers write such a host in brackets, Python without."""
    session.storage_state["cookies"] = [cookie("sid", domain="[::1]")]
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Cookie"))
        return httpx.Response(200, headers={"Set-Cookie": "new=1"})

    with http_clients.open_httpx(session, transport=httpx.MockTransport(answer)) as client:
        client.get("http://[::1]:8000/")
    assert seen == ["sid=1"]
    assert {each["domain"] for each in session.storage_state["cookies"]} == {"[::1]"}


def test_what_a_jar_cannot_hold_is_reported(open_client: Opener, session: BrowserSession, site: Site) -> None:
    """Partitioned and unsendable cookies are skipped, named without their value, and still in the session after it."""
    session.storage_state["cookies"] = [
        cookie("embed", "hush-1", secure=True, partitionKey="https://top.example"),
        cookie("word", "hush-é"),
        cookie("lines", "hush\r\nX-Own: 1"),
    ]
    with open_client(session) as client:
        client.get(site.url("/blank"))
    assert site.seen_cookies[-1][1] == ""
    assert {problem.kind for problem in session.problems} == {"cookie_skipped"}
    assert len(session.problems) == 3
    assert "hush" not in str(session.problems)
    assert len(session.storage_state["cookies"]) == 3


def test_partitioned_cookies_from_a_server_are_not_spread(
    open_client: Opener, session: BrowserSession, site: Site
) -> None:
    """A cookie that the server wants in one partition does not enter the session without it."""
    with open_client(session) as client:
        client.get(site.url("/set?cookie=p%3D1%3BSecure%3BPartitioned"))
    assert session.storage_state["cookies"] == []
    assert [problem.kind for problem in session.problems] == ["cookie_not_captured"]


def test_the_users_own_cookies_go_out_too(open_client: Opener, session: BrowserSession, site: Site) -> None:
    """Cookies that the user gives to one request or to the client are sent beside the session's."""
    session.storage_state["cookies"] = [cookie("sid")]
    with open_client(session) as client:
        client.cookies.set("mine", "2")
        client.get(site.url("/blank"), headers={"Cookie": "own=3"}) if isinstance(client, requests.Session) else (
            client.get(site.url("/blank"))
        )
    expected = {"sid", "own"} if isinstance(client, requests.Session) else {"sid", "mine"}
    assert names(site.seen_cookies[-1][1]) == expected


async def test_checkpoint_captures_an_open_client(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """A save in the middle holds what the server has set so far."""
    session = keeper.enter()
    with open_client(session) as client:
        client.post(site.url("/login"))
        await session.checkpoint()
        assert keeper.stored is not None
        assert [c["name"] for c in keeper.stored["cookies"]] == ["sid"]


async def test_a_logout_after_a_checkpoint_propagates(open_client: Opener, keeper: StubKeeper, site: Site) -> None:
    """A login that a checkpoint has saved, and that the same client then ends, is not stored any more."""
    session = keeper.enter()
    with open_client(session) as client:
        client.post(site.url("/login"))
        await session.checkpoint()
        client.get(site.url("/set?cookie=sid=;Max-Age=0"))
    assert session.storage_state["cookies"] == []


def test_detach_lets_go_of_the_client(session: BrowserSession, site: Site) -> None:
    """After detaching, the client works as before, and what it does is not captured any more."""
    with requests.Session() as client:
        with http_clients.attach_client(session, client):
            client.get(site.url("/set?cookie=a=1"))
        client.get(site.url("/set?cookie=b=1"))
        assert "send" not in vars(client)
    assert [c["name"] for c in session.storage_state["cookies"]] == ["a"]
    assert captures_of(session) == []


def test_a_cookie_that_expires_in_a_client_does_not_replace_a_newer_one(session: BrowserSession) -> None:
    """A browser beside the client has got a new one meanwhile. A cookie that the server deletes is deleted."""
    now = time.time()
    older, newer = (cookie("sid", value, expires=now + life) for value, life in (("older", 60), ("newer", 600)))
    jar = CookieJar()
    bound = BoundJar(lambda: jar, session.report)
    bound.fill({"cookies": [older], "origins": []}, now)
    assert bound.capture({"cookies": [newer], "origins": []}, now + 61)["cookies"] == [newer]
    bound.fill({"cookies": [newer], "origins": []}, now)
    jar.clear()
    assert bound.capture({"cookies": [newer], "origins": []}, now)["cookies"] == []


def test_a_cookie_that_has_expired_for_long_is_dropped(session: BrowserSession) -> None:
    """Its own clock may be wrong by a day. Kept for ever, such cookies would fill the session."""
    now, jar = time.time(), CookieJar()
    bound = BoundJar(lambda: jar, session.report)
    state = {
        "cookies": [cookie("new", "x", expires=now - 3600), cookie("old", "x", expires=now - 90_000)],
        "origins": [],
    }
    bound.fill(state, now)
    assert [each["name"] for each in bound.capture(state, now)["cookies"]] == ["new"]


@pytest.mark.parametrize("make", [requests.Session, httpx.Client], ids=["requests", "httpx"])
def test_a_client_is_afterwards_as_it_was(session: BrowserSession, site: Site, make: Callable[[], Any]) -> None:
    """One client for many accounts: what one of them was is not sent for the next one, nor stored as its own."""
    session.storage_state["session_reuse"] = {"environment": {"user_agent": "Mozilla/5.0 (the browser)"}}
    session.storage_state["cookies"] = [cookie("sid", "alice"), cookie("both", "alice")]
    next_one = BrowserSession("site/bob")
    with make() as client:
        for name in ("mine", "both"):
            client.cookies.set(name, "mine", domain="shop.localhost", path="/")
        agent = client.headers["User-Agent"]
        with http_clients.attach_client(session, client):
            client.get(site.url("/set?cookie=turn=alice"))
        assert client.headers["User-Agent"] == agent
        with http_clients.attach_client(next_one, client):
            client.get(site.url("/blank"))
    assert set(site.seen_cookies[-1][1].split("; ")) == {"mine=mine", "both=mine"}
    assert {each["name"] for each in next_one.storage_state["cookies"]} == {"mine", "both"}
    assert {each["name"] for each in session.storage_state["cookies"]} == {"sid", "both", "mine", "turn"}


def test_a_cookie_stays_with_its_host_however_often_others_change(session: BrowserSession) -> None:
    """A site sets one with each response. The client's own header is corrected all the same."""
    session.storage_state["cookies"] = [cookie("sid")]
    jar = CookieJar()
    bound = BoundJar(lambda: jar, session.report)
    bound.fill(session.storage_state, time.time())
    for number in range(1100):
        jar.set_cookie(jar_cookie(cookie("turn", str(number))))
        others = bound.others("sid=1; own=1")
        assert bound.header("http://app.shop.localhost/", others, time.time()) == "own=1"


@pytest.mark.parametrize("make", [requests.Session, httpx.Client], ids=["requests", "httpx"])
def test_a_user_in_the_url_is_no_part_of_a_cookie(session: BrowserSession, site: Site, make: Callable[[], Any]) -> None:
    """`http.cookiejar` files cookies under all that stands before the path, a password too."""
    with make() as client, http_clients.attach_client(session, client):
        client.get(site.url("/set?cookie=sid=1").replace("://", "://alice:secret@"))
        client.get(site.url("/blank").replace("://", "://alice:secret@"))
    assert site.seen_cookies[-1][1] == "sid=1"
    assert [each["domain"] for each in session.storage_state["cookies"]] == ["shop.localhost"]


def test_who_logged_in_is_who_calls(open_client: Opener, session: BrowserSession) -> None:
    """The client calls itself as the browser that logged in, unless its user has chosen a name."""
    session.storage_state["session_reuse"] = {"environment": {"user_agent": "Mozilla/5.0 (the browser)"}}
    with open_client(session) as client:
        assert client.headers["User-Agent"] == "Mozilla/5.0 (the browser)"
    with http_clients.open_httpx(session, headers={"User-Agent": "mine"}) as named:
        assert named.headers["User-Agent"] == "mine"


def test_missing_library_names_the_extra(session: BrowserSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with (
        pytest.raises(MissingExtraError, match=r"session-reuse\[httpx2\]"),
        http_clients.open_httpx2(session),
    ):
        pass


def test_a_request_made_before_carries_the_cookies_of_now(session: BrowserSession, site: Site) -> None:
    """A request that is sent late, or once more, does not bring back a cookie that was replaced or deleted since."""
    session.storage_state["cookies"] = [cookie("sid", "old")]
    with http_clients.open_httpx(session) as client:
        request = client.build_request("GET", site.url("/blank"))
        client.get(site.url("/set?cookie=sid=new"))
        client.send(request)
        client.get(site.url("/set?cookie=sid=;Max-Age=0"))
        client.send(request)
    assert [header for _, header in site.seen_cookies] == ["sid=old", "sid=new", "sid=new", ""]


def test_the_first_session_of_a_client_outlives_the_second(session: BrowserSession, site: Site) -> None:
    """After one of two sessions has left a client, the other's cookies still stay with their host."""
    session.storage_state["cookies"] = [cookie("sid")]
    session.allowed_domains, other = ("shop.localhost",), BrowserSession("site/bob")
    other.allowed_domains = ("mail.localhost",)
    with requests.Session() as client, http_clients.attach_client(session, client):
        with http_clients.attach_client(other, client):
            pass
        client.get(site.url("/blank", host="evil.shop"))
    assert site.seen_cookies[-1][1] == ""


def test_an_assigned_jar_counts(open_client: Opener, session: BrowserSession, site: Site) -> None:
    """An empty one is a logout. A login that comes after it is the one that is sent and saved."""
    session.storage_state["cookies"] = [cookie("sid", "alice"), cookie("gone")]
    with open_client(session) as client:
        client.cookies = type(client.cookies)()
        client.get(site.url("/set?cookie=sid=bob"))
        client.get(site.url("/blank"))
    assert [header for _, header in site.seen_cookies] == ["", "sid=bob"]
    assert [(each["name"], each["value"]) for each in session.storage_state["cookies"]] == [("sid", "bob")]
    assert not list(client.cookies)


@pytest.mark.parametrize("assign", ["event_hooks", "list"])
@pytest.mark.parametrize("make", [http_clients.open_httpx, http_clients.open_httpx2], ids=["httpx", "httpx2"])
def test_assigned_hooks_keep_the_rule(session: BrowserSession, site: Site, make: Any, assign: str) -> None:
    """A host-only cookie stays with its host, also after a redirect, and the user's own list is his own again."""
    session.storage_state["cookies"] = [cookie("sid")]
    own: list[Any] = [lambda request: None]
    hooks = {"request": list(own)}
    with make(session, follow_redirects=True) as client:
        if assign == "list":
            client.event_hooks["request"] = hooks["request"]
        else:
            client.event_hooks = hooks
        client.get(site.url("/blank", host="app.shop"))
        client.get(site.url("/blank"))
    assert [header for _, header in site.seen_cookies] == ["", "sid=1"]
    assert hooks["request"] == own == client.event_hooks["request"]


async def test_assigned_hooks_keep_the_rule_in_asynchronous_clients(session: BrowserSession, site: Site) -> None:
    """Its hooks are asynchronous."""
    session.storage_state["cookies"] = [cookie("sid")]
    async with http_clients.open_httpx_async(session) as client:
        client.event_hooks = {"request": []}
        await client.get(site.url("/blank", host="app.shop"))
        await client.get(site.url("/blank"))
    assert [header for _, header in site.seen_cookies] == ["", "sid=1"]
    assert client.event_hooks["request"] == []


def test_a_cookie_of_one_request_replaces_the_one_of_the_session(
    open_client: Opener, session: BrowserSession, site: Site
) -> None:
    """It is sent once, as the user has written it, also when the session had the same one before."""
    session.storage_state["cookies"] = [cookie("sid", "old"), cookie("other")]
    with open_client(session) as client:
        client.get(site.url("/set?cookie=sid=new"))
        for value in ("mine", "old"):
            client.get(site.url("/blank"), headers={"Cookie": f"sid={value}"})
        client.get(site.url("/blank"))
    sent = [sorted(header.split("; ")) for _, header in site.seen_cookies]
    assert sent == [["other=1", f"sid={value}"] for value in ("old", "mine", "old", "new")]


@pytest.mark.parametrize(
    ("url", "set_cookie"),
    [
        ("http://shop.test", "sid=evil"),
        ("http://app.shop.test", "sid=evil; Domain=shop.test"),
        ("http://shop.test", "sid=; Max-Age=0"),
        ("http://shop.test", "own=1; Secure"),
        ("http://shop.test", "__Secure-own=1"),
        ("http://shop.localhost", "__Host-own=1; Secure; Path=/; Domain=shop.localhost"),
        ("http://shop.localhost", "__Host-own=1; Secure; Path=/set"),
        ("http://a.co.uk", "own=1; Domain=co.uk"),
        ("http://a.github.io", "own=1; Domain=github.io"),
    ],
)
def test_what_browsers_refuse_is_not_captured(
    open_client: Opener, session: BrowserSession, site: Site, url: str, set_cookie: str
) -> None:
    """It is not sent either, and reported. A Secure cookie of the same name stays."""
    held = [cookie("sid", "login", domain="shop.test", secure=True)]
    session.storage_state["cookies"] = held
    proxy = site.origin().replace("shop.localhost", "127.0.0.1")
    with open_client(session) as client:
        query = f"cookie={quote(set_cookie)}&to={quote(f'{url}/blank')}"
        _get_through(client, proxy, f"{url}/set-and-go?{query}", session)
        _get_through(client, proxy, f"{url}/blank", session)
    assert {header for _, header in site.seen_cookies} == {""}
    assert session.storage_state["cookies"] == held
    assert {problem.kind for problem in session.problems} == {"cookie_not_captured"}


@pytest.mark.parametrize(
    "set_cookie", ["__Host-own=1; Secure; Path=/", "__Secure-own=1; Secure", "own=1", "own=1; Domain=shop.localhost"]
)
def test_what_browsers_take_is_captured(
    open_client: Opener, session: BrowserSession, site: Site, set_cookie: str
) -> None:
    """Loopback is as good as https, as in Chromium."""
    session.storage_state["cookies"] = [cookie("sid", secure=True)]
    with open_client(session) as client:
        client.get(site.url(f"/set?cookie={quote(set_cookie)}"))
        client.get(site.url("/set?cookie=sid=2"))
    assert {each["name"] for each in session.storage_state["cookies"]} == {"sid", set_cookie.partition("=")[0]}
    assert "2" in {each["value"] for each in session.storage_state["cookies"]}
    assert session.problems == []


def test_several_threads_use_one_client(session: BrowserSession) -> None:
    """Responses that arrive at the same time cost no cookie of each other, and no request an error."""
    numbers = itertools.count()

    def respond(request: httpx.Request) -> httpx.Response:
        flags = "; Secure" if request.url.scheme == "https" else ""
        return httpx.Response(200, headers={"Set-Cookie": f"c{next(numbers)}=1; Path=/{flags}"})

    def work(url: str) -> None:
        for _ in range(40):
            client.get(url)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with (
            http_clients.open_httpx(session, transport=httpx.MockTransport(respond)) as client,
            ThreadPoolExecutor(4) as threads,
        ):
            list(threads.map(work, ["https://shop.test/", "http://shop.example/"] * 2))
    finally:
        sys.setswitchinterval(before)
    assert len(session.storage_state["cookies"]) == 160
    assert session.problems == []


def test_a_jar_whose_policy_raises_keeps_no_other_thread_waiting(session: BrowserSession) -> None:
    """The error reaches the agent as it does without us, and the next request goes out."""

    class Raising(DefaultCookiePolicy):
        def set_ok(self, *_: object) -> bool:
            raise InterruptedError

    answer = httpx.Response(200, headers={"Set-Cookie": "sid=1"})
    with http_clients.open_httpx(session, transport=httpx.MockTransport(lambda _: answer)) as client:
        client.cookies.jar.set_policy(Raising())
        with pytest.raises(InterruptedError):
            client.get("https://shop.test/")
        client.cookies.jar.set_policy(DefaultCookiePolicy())
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(client.get, "https://shop.test/").result(10).status_code == 200


def test_a_send_of_the_users_own_is_put_back(session: BrowserSession) -> None:
    """A client whose `send` was replaced before has that one again."""
    with requests.Session() as client:
        own = client.send = lambda *_, **__: requests.Response()
        with http_clients.attach_client(session, client):
            pass
        assert client.send is own


def test_a_client_without_its_hooks_is_captured(session: BrowserSession, site: Site) -> None:
    """A user who empties the hooks of a client takes nothing from the capture."""
    with http_clients.open_httpx(session) as client:
        client.get(site.url("/set?cookie=sid=1"))
        client.event_hooks["request"].clear()
    assert stored_cookie(session, "sid") is not None
