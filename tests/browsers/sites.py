"""Local sites for the browser tests, one server for all hostnames under `.localhost`.

Each page shows what it thinks in `<html data-login="in|out">`, once it knows. What the server remembers is per hostname.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.harness.pages import PageHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOW = "const show = (isIn) => { document.documentElement.dataset.login = isIn ? 'in' : 'out'; };"

_OPEN_DATABASE = """
const open = () => new Promise((resolve, reject) => {
  const request = indexedDB.open('auth', 3);
  request.onupgradeneeded = () => {
    const store = request.result.createObjectStore('users', { keyPath: 'id' });
    store.createIndex('by_name', 'user.name', { unique: true });
    request.result.createObjectStore('loose', { autoIncrement: true });
  };
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
const put = (db, name, value) => new Promise((resolve, reject) => {
  const transaction = db.transaction(name, 'readwrite');
  transaction.objectStore(name).put(value);
  transaction.oncomplete = resolve;
  transaction.onabort = () => reject(transaction.error);
});
const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
"""

_DATABASE_VALUES = {
    "plain": "({ id: 1, user: { name: 'alice', tags: ['a', null, true, 1.5] } })",
    "rich": """(await (async () => {
      const key = await crypto.subtle?.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign', 'verify']);
      const shared = { x: 1 };
      return { id: 1, user: { name: 'alice' }, when: new Date(86400000), map: new Map([['k', new Set([1n, -0])]]),
        odd: Object.assign([, 1], { x: 1 }), resizable: new ArrayBuffer(4, { maxByteLength: 16 }),
        caused: new Error('e', { cause: { shared } }), view: new Uint16Array([1, 2, 65535]), data: new DataView(new ArrayBuffer(4)), blob: new Blob(['hi'], { type: 'a/b' }),
        file: new File(['x'], 'f.txt', { lastModified: 5 }), nan: NaN, undef: undefined, hole: [1, , 3], pattern: /a+/gi,
        error: new TypeError('t'), boxed: Object('s'), shared, again: shared, surrogate: '\\ud800', list: ['h', 1], key };
    })())""",
    "cyclic": "(() => { const value = { id: 1, user: { name: 'alice' }, self: [] }; value.self.push(value); return value; })()",
}

_DATABASE_CHECKS = {
    "plain": "value.user.name === 'alice' && value.user.tags[1] === null && value.user.tags[3] === 1.5",
    "rich": """value.when.getTime() === 86400000 && value.map.get('k').has(1n) && value.view[2] === 65535
      && value.data.byteLength === 4 && await value.blob.text() === 'hi' && value.blob.type === 'a/b'
      && value.file.name === 'f.txt' && value.file.lastModified === 5 && Number.isNaN(value.nan) && 'undef' in value
      && !(1 in value.hole) && value.hole[2] === 3 && value.pattern.flags === 'gi' && value.error instanceof TypeError
      && !(0 in value.odd) && value.odd.x === 1 && value.resizable.maxByteLength === 16 && value.resizable.byteLength === 4
      && value.caused.cause.shared === value.shared && !('cause' in value.error) && value.boxed instanceof String && value.shared === value.again && value.surrogate === '\\ud800'
      && value.list[0] === 'h' && (!crypto.subtle || (await crypto.subtle.exportKey('jwk', value.key)).kty === 'oct')""",
    "cyclic": "value.self[0] === value",
}


def _page(script: str, body: str = "") -> str:
    return f"<!doctype html><title>t</title><body>{body}<script>{_SHOW}\n{script}</script>"


def _web_storage(name: str) -> dict[str, str]:
    return {
        f"/{name}": _page(f"show({name}Storage.getItem('token') === 'T\\u0000\\ud800\\u00fc');"),
        f"/{name}/login": _page(
            f"{name}Storage.setItem('token', 'T\\u0000\\ud800\\u00fc'); location.href = '/{name}';"
        ),
    }


def _databases() -> dict[str, str]:
    pages = {}
    for kind, value in _DATABASE_VALUES.items():
        check = _DATABASE_CHECKS[kind]
        pages[f"/idb-{kind}"] = _page(
            f"{_OPEN_DATABASE}(async () => {{ const db = await open();"
            "const value = await done(db.transaction('users').objectStore('users').index('by_name').get('alice'));"
            f"db.close(); show(Boolean(value) && {check}); }})().catch((error) => {{ console.log(error); show(false); }});"
        )
        pages[f"/idb-{kind}/login"] = _page(
            f"{_OPEN_DATABASE}(async () => {{ const value = {value}; const db = await open();"
            "await put(db, 'users', value); db.close();"
            f"location.href = '/idb-{kind}'; }})();"
        )
    return pages


_PATCHED = """
const calls = [];
let isMine = true;
const patch = (object, name) => {
  const { value, get, set } = Object.getOwnPropertyDescriptor(object, name);
  const wrap = (native) => native && function (...given) {
    if (isMine) { calls.push(String(name)); throw new Error('mine'); }
    return Reflect.apply(native, this, given);
  };
  Object.defineProperty(object, name, value ? { value: wrap(value) } : { get: wrap(get), set: wrap(set) });
};
const request = indexedDB.open('auth', 3);
request.addEventListener('success', () => {
  isMine = false;
  request.result.close();
  console.log(JSON.stringify(calls));
});
const patchable = (prototype) => Object.getOwnPropertyNames(prototype).filter((name) => name !== 'constructor');
const types = [IDBDatabase, IDBObjectStore, IDBTransaction, IDBRequest, IDBVersionChangeEvent, Event, DOMException, Promise];
const names = types.map(({ prototype }) => [prototype, patchable(prototype)]);
if (location.search) names.push([Array.prototype, ['filter', 'map', 'forEach', 'some', Symbol.iterator]]);
for (let type = 0; type < names.length; type++)
  for (let index = 0; index < names[type][1].length; index++) patch(names[type][0], names[type][1][index]);
"""

_WATCHING = """
const seen = { names: Object.getOwnPropertyNames(window).sort(), keys: [], events: [], calls: [], stores: [] };
seen.entries = performance.getEntries().map(({ entryType }) => entryType);
const isLeaving = location.search === '?leaving', { keys } = Object, { stringify } = JSON, { transaction } = IDBDatabase.prototype;
const [local, tab, root, listen, later] = [localStorage, sessionStorage, document.documentElement, addEventListener, setTimeout];
const look = () => seen.keys.push(...keys(local), ...keys(tab));
const frame = root.appendChild(document.createElement('iframe'));
for (const view of [window, frame.contentWindow]) {
  listen.call(view, 'storage', ({ key }) => seen.events.push(key));
  for (const end of ['pagehide', 'visibilitychange', 'unload'])
    for (const each of [view, view.document])
      listen.call(each, end, () => { document.cookie = `left=${document.cookie.split('=')[1] || ''} ${keys(tab)}`; });
}
look();
const asked = isLeaving || indexedDB.databases(), request = isLeaving || indexedDB.open('auth', 4);
const watched = [console, EventTarget, Event, Storage, IDBFactory, IDBDatabase, Performance].map((each) => each.prototype || each);
for (const object of watched)
  for (const name of Object.getOwnPropertyNames(object)) {
    const { value } = Object.getOwnPropertyDescriptor(object, name);
    if (typeof value !== 'function' || name === 'constructor') continue;
    object[name] = function (...given) { seen.calls.push(name); return Reflect.apply(value, this, given); };
  }
if (isLeaving) {
  root.dataset.seen = stringify(seen);
  location.replace(location.pathname);
} else {
  request.onupgradeneeded = () => seen.stores.push(...request.result.objectStoreNames);
  asked.then((found) => { seen.databases = found.map(({ name }) => name); });
  request.onsuccess = () => {
    seen.stores.push(...request.result.objectStoreNames);
    transaction.call(request.result, 'users').objectStore('users').count().onsuccess = ({ target }) => later(() => {
      seen.records = target.result;
      look();
      root.dataset.seen = stringify(seen);
    }, 200);
  };
}
"""

_STALE = "if (localStorage.getItem('token')) { localStorage.clear(); sessionStorage.clear(); %s } else show(false);"
_PAGES = {
    "/blank": _page(""),
    **_web_storage("local"),
    **_web_storage("session"),
    **_databases(),
    "/idb-key/login": _page(
        f"{_OPEN_DATABASE}(async () => {{ const db = await open();"
        "const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 128 }, false, ['encrypt']);"
        "await put(db, 'users', { id: 1, user: { name: 'a' }, key });"
        "await put(db, 'loose', 'kept');"
        "db.close(); show(true); })();"
    ),
    "/idb-big/login": _page(
        f"{_OPEN_DATABASE}(async () => {{ const db = await open();"
        "await put(db, 'loose', 'x'.repeat(3_000_000));"
        "db.close(); show(true); })();"
    ),
    "/stale/reload": _page(_STALE % "location.reload();"),
    "/stale/replace": _page(_STALE % "location.replace('/stale/replace?again');"),
    "/stale/elsewhere": _page(_STALE % "location.href = document.location.search.slice(1);"),
    "/stale/database": _page(
        "const request = indexedDB.deleteDatabase('auth');request.onsuccess = () => location.replace('/idb-plain');"
    ),
    "/moved": _page("location.replace('/idb-rich');"),
    "/rotating": _page(
        "fetch('/rotate', { method: 'POST', body: localStorage.getItem('refresh') || '' }).then((answer) => answer.json())"
        ".then(({ next }) => { if (next) localStorage.setItem('refresh', next); show(Boolean(next)); });"
    ),
    "/hostile": _page(
        "const set = Storage.prototype.setItem, get = Storage.prototype.getItem;"
        "const had = get.call(localStorage, 'token') === 'H';"
        "for (const name of ['setItem', 'getItem', 'removeItem', 'clear', 'key'])"
        " Storage.prototype[name] = () => { throw new Error('mine'); };"
        "Object.defineProperty(Storage.prototype, 'length', { get: () => 0 }); JSON.parse = JSON.stringify = () => '{}';"
        "window.indexedDB = null; Object.defineProperty(window, 'localStorage', { value: null });"
        "Promise.all = () => new Promise(() => {}); show(had); window.login = (storage) => set.call(storage, 'token', 'H');"
    ),
    "/patched": _page(_PATCHED),
    "/watching": _page(_WATCHING),
    "/hostile/login": _page("localStorage.setItem('token', 'H'); location.href = '/hostile';"),
    "/logout": _page(
        "localStorage.clear(); sessionStorage.clear();"
        "const request = indexedDB.deleteDatabase('auth'); request.onsuccess = request.onerror = () => show(false);"
    ),
    "/framed": _page(
        "addEventListener('message', ({ data }) => show(data === 'in'));"
        "const frame = document.createElement('iframe'); frame.src = location.search.slice(1); document.body.append(frame);"
    ),
    "/counting": _page(
        f"{_OPEN_DATABASE} window.confirmed = []; (async () => {{ const db = await open(); for (let n = Number(localStorage.getItem('n')) + 1; ; n++) {{"
        " document.cookie = `n=${n}; max-age=999`; localStorage.setItem('n', n); sessionStorage.setItem('n', n);"
        " await put(db, 'users', { id: 1, user: { name: 'a' }, n }); confirmed.push([performance.now(), n]);"
        " await new Promise((done) => setTimeout(done, 10)); } })();"
    ),
    "/early": "<!doctype html><script>window.seen = [Object.getOwnPropertyNames(window).length, new Error('x').stack,"
    "window.onbeforeunload, window.onpagehide, localStorage.length]</script>",
    "/renew": _page(
        f"{_OPEN_DATABASE}(async () => {{ localStorage.setItem('renewed', '1'); const db = await open();"
        "await put(db, 'loose', 'renewed'); db.close(); parent.postMessage('in', '*'); })();"
    ),
    "/inner": _page(
        "let isIn = false; try { isIn = localStorage.getItem('token') !== null; } catch {} show(isIn); parent.postMessage(isIn ? 'in' : 'out', '*');"
    ),
    "/sso/app": _page(
        "const code = new URLSearchParams(location.search).get('code'); if (code) localStorage.setItem('app', code);"
        "if (localStorage.getItem('app') === 'fresh') { show(true); } else if (localStorage.getItem('app') === 'old')"
        "{ location.href = location.href.replace('//app', '//hub').replace('/sso/app', '/sso/hub'); } else show(false);"
    ),
    "/sso/hub": _page(
        "if (localStorage.getItem('tenant')) location.href = location.href.replace('//hub', '//idp').replace('/hub', '/idp');"
        "else show(false);"
    ),
    "/sso/idp": _page(
        "if (sessionStorage.getItem('ticket') && localStorage.getItem('idp')) location.href ="
        " location.href.replace('//idp', '//app').replace('/sso/idp', '/sso/app?code=fresh'); else show(false);"
    ),
    "/popup": _page(
        "addEventListener('message', ({ data }) => { localStorage.setItem('token', data); show(true); });"
        "show(localStorage.getItem('token') !== null);",
        "<button onclick=\"window.open(location.href.replace('//app', '//idp').replace('/popup', '/popup/idp'))\">go</button>",
    ),
    "/popup/idp": _page("localStorage.setItem('idp', 'I'); opener.postMessage('T', '*'); window.close();"),
    "/popup/logout": _page(
        "localStorage.clear(); indexedDB.deleteDatabase('auth').onsuccess = () => { show(false); window.close(); };"
    ),
    "/popup/database": _page(
        f"{_OPEN_DATABASE} open().then((db) => put(db, 'loose', 'T')).then(() => window.close());"
    ),
    "/form": _page("", "<form method=post action=/form/login><input name=user><button>go</button></form>"),
}

_PAGES |= {
    **{f"/to{path}": _page(f"location.replace('{path}');") for path in ("/idb-plain", "/idb-cyclic")},
    **{
        f"/last/{name}": _page(
            "window.getEventListeners = () => { window.wasCalled = true; return {}; };"
            f"const last = () => localStorage.setItem('token', 'last'); localStorage.setItem('token', 'early'); {listen}"
        )
        for name, listen in {
            **{each: f"addEventListener('{each}', last);" for each in ("pagehide", "pageswap", "visibilitychange")},
            "document-visibilitychange": "document.addEventListener('visibilitychange', last);",
            "inner-pagehide": "document.body.append(document.createElement('iframe')); frames[0].onpagehide = last;",
        }.items()
    },
    "/register": _page(
        "navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready).then(() => show(true));"
    ),
    "/worker.js": "self.onfetch = (event) => { if (event.request.mode === 'navigate' && !event.request.url.endsWith('/inner'))"
    " event.respondWith(new Response('<script>localStorage.shell = 1</script>', { headers: { 'Content-Type': 'text/html' } })); };",
    "/late.js": f"{_OPEN_DATABASE} self.onmessage = (event) => event.waitUntil((async () => {{"
    " while ((await clients.matchAll({ includeUncontrolled: true })).length) await new Promise((done) => setTimeout(done, 10));"
    " const db = await open(); await put(db, 'loose', 'late'); db.close(); await fetch('/written'); })());",
    "/late": _page(
        "navigator.serviceWorker.register('/late.js').then(() => navigator.serviceWorker.ready)"
        ".then(({ active }) => { active.postMessage(1); show(true); });"
    ),
    "/writer.js": f"{_OPEN_DATABASE}(async () => {{ const db = await open();"
    f" await put(db, 'users', {_DATABASE_VALUES['plain']}); db.close(); new BroadcastChannel('writer').postMessage('done'); }})();",
    **{
        f"/working/{kind}": _page(
            f"new BroadcastChannel('writer').onmessage = () => show(true); window.worker = {worker};"
        )
        for kind, worker in (
            ("dedicated", "new Worker('/writer.js')"),
            ("shared", "new SharedWorker('/writer.js')"),
            ("service", "navigator.serviceWorker.register('/writer.js')"),
        )
    },
    "/sandboxing": _page(
        "const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';"
        "frame.src = location.search.slice(1); document.body.append(frame);"
    ),
}
_NO_DOCUMENTS = {
    "/error/503": (503, {}),
    "/error/401": (401, {}),
    "/sandboxed": (200, {"Content-Security-Policy": "sandbox allow-scripts"}),
}
"""Status and headers of answers without a document of the site's own origin."""

_COOKIES = {
    "httponly": "sid=S; Path=/; HttpOnly; SameSite=Strict",
    "persistent": "sid=S; Path=/; Max-Age=864000",
    "session": "sid=S; Path=/",
    "latin": "sid=\xff\xfe; Path=/",
    "empty": "sid=; Path=/",
    "prefixed": "__Host-sid=S; Path=/; Secure; HttpOnly; SameSite=None",
    "chips": "chips=S; Path=/; Secure; SameSite=None; Partitioned; HttpOnly",
}


class Sites:
    """The running server.

    Attributes:
        port: where it listens.
        hits: number of requests per hostname and path.
        refresh_tokens: hostname -> the one refresh token that is good.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.hits: Counter[tuple[str, str]] = Counter()
        self.refresh_tokens: dict[str, str] = {}

    def origin(self, host: str) -> str:
        """Return the origin of a hostname under `.localhost`."""
        return f"http://{host}.localhost:{self.port}"

    def url(self, host: str, path: str) -> str:
        """Return the URL of a page."""
        return self.origin(host) + path

    def rotate(self, host: str, token: str) -> str:
        """Exchange a refresh token for the next. A token used twice ends the login."""
        good = self.refresh_tokens.get(host, "")
        self.refresh_tokens[host] = f"r{int(good[1:]) + 1}" if good and token == good else ""
        return self.refresh_tokens[host]


class _Handler(PageHandler):
    protocol_version = "HTTP/1.1"
    sites: Sites

    def respond(self) -> None:
        if self.command == "POST":
            self._post()
        else:
            self._get()

    def _get(self) -> None:
        parts = urlsplit(self.path)
        host = self.headers["Host"].split(".")[0]
        self.sites.hits[host, parts.path] += 1
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        query = parse_qs(parts.query)
        if parts.path == "/cookie/login":
            self._answer(_page("location.href = '/cookie';"), cookie=_COOKIES[query["kind"][0]])
        elif parts.path in ("/cookie", "/chips"):
            is_in = any(cookies[name].value == "S" for name in ("sid", "__Host-sid", "chips") if name in cookies)
            told = "parent.postMessage(document.documentElement.dataset.login, '*');" if parts.path == "/chips" else ""
            self._answer(_page(f"show({json.dumps(is_in)}); {told}"))
        elif parts.path == "/chips/login":
            self._answer(_page("location.href = '/chips';"), cookie=_COOKIES["chips"])
        elif parts.path == "/logout":
            self._answer(_PAGES["/logout"], cookie="sid=; Path=/; Max-Age=0")
        elif parts.path == "/error/dropped":
            self.close_connection = True
            self.connection.close()
        elif parts.path in _NO_DOCUMENTS:
            status, headers = _NO_DOCUMENTS[parts.path]
            self._answer("<!doctype html>" if status == 200 else "", status=status, headers=headers)
        elif parts.path == "/clear":
            self._answer("", headers={"Clear-Site-Data": '"cookies", "storage"'})
        elif parts.path.startswith("/isolated/"):
            page = _PAGES[parts.path.removeprefix("/isolated")]
            self._answer(page, headers={"Origin-Agent-Cluster": "?1"})
        elif parts.path == "/redirect":
            self._answer("", status=302, location=query["to"][0])
        else:
            kind = "text/javascript" if parts.path.endswith(".js") else "text/html"
            self._answer(_PAGES.get(parts.path, ""), status=200 if parts.path in _PAGES else 404, kind=kind)

    def _post(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        host = self.headers["Host"].split(".")[0]
        if self.path == "/rotate":
            self._answer(json.dumps({"next": self.sites.rotate(host, body)}), kind="application/json")
        else:
            self._answer("", status=303, location="/cookie", cookie=_COOKIES["httponly"])

    def _answer(
        self,
        text: str,
        *,
        status: int = 200,
        kind: str = "text/html",
        cookie: str = "",
        location: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        fields = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", **(headers or {})}
        fields |= {name: value for name, value in (("Set-Cookie", cookie), ("Location", location)) if value}
        self.answer(text, status=status, kind=f"{kind}; charset=utf-8", headers=fields)


@contextmanager
def serve_sites() -> Iterator[Sites]:
    """Run the sites on a free port."""
    sites = Sites(0)
    with serving(type("Handler", (_Handler,), {"sites": sites})) as sites.port:
        yield sites
