"""`Address`: where a Chromium that runs has its DevTools, in any form that it is written."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit, urlunsplit

from session_reuse._browser.drivers.connection import open_websocket
from session_reuse.browsers._web_address import parts_of
from session_reuse.errors import AdapterError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from session_reuse._browser.drivers.connection import Transport

OLDEST_CHROMIUM: Final = 115
"""The first one whose storage commands take a storage key."""
_LIMIT: Final = 5.0
_SCHEMES: Final = ("http", "https", "ws", "wss")
_NO_BROWSER: Final = "start one with --remote-debugging-port=9222, and name that address"


@dataclass(frozen=True, slots=True)
class Address:
    """An address that a user has given.

    Attributes:
        url: with scheme, path and query; may hold a token, so it is in no message.
        headers: for each request.
        is_own: whether the browser was started for this session.
        may_be_there: whether it is tried again after its connection has ended.
    """

    url: SplitResult = field(repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    is_own: bool = False
    may_be_there: Callable[[], bool] = lambda: True
    process: ClassVar[None] = None

    @property
    def is_alive(self) -> bool:
        """Whether the browser may still be there."""
        return self.may_be_there()

    @classmethod
    def of(cls, address: str | int, headers: Mapping[str, str] | None = None, **known: Any) -> Self:
        """Return the address that a port, `host:port` or a URL stands for.

        Raises:
            ConfigurationError: it is none.
        """
        text = str(address).strip()
        if text.isdecimal():
            text = f"127.0.0.1:{text}"
        url = parts_of(text if "://" in text else f"http://{text}", *_SCHEMES)
        if url is None:
            raise ConfigurationError(
                "not a DevTools address: write a port, host:port, http(s)://host:port or ws(s)://..."
            )
        found = cls(url, headers, **known)
        if url.path.startswith("/devtools/page/"):
            raise ConfigurationError(
                f"{found}/devtools/page/... is one page: use the browser's own address, http://{found._host}"
            )
        return found

    def __str__(self) -> str:
        """Return the part that holds no secret."""
        return f"{self.url.scheme}://{self._host}"

    @property
    def _host(self) -> str:
        return self.url.netloc.rpartition("@")[2]

    @property
    def for_clients(self) -> str:
        """What other clients connect to: the address as it was given."""
        is_local = self.url.scheme == "ws" and self.url.path.startswith("/devtools/browser/")
        return f"http://{self.url.netloc}" if is_local else self.url.geturl()

    async def websocket(self) -> str:
        """Return the websocket of the browser that is there now.

        Raises:
            AdapterError: no browser answers.
        """
        return self.url.geturl() if self.url.scheme in {"ws", "wss"} else await asyncio.to_thread(self._asked)

    async def connect(self) -> tuple[str, Transport]:
        """Open the websocket of the browser that is there now, and return its URL too.

        Raises:
            AdapterError: no browser answers.
        """
        url = await self.websocket()
        try:
            return url, await open_websocket(url, self.headers)
        except Exception as error:  # noqa: BLE001  (each has its own: of the system, of the handshake)
            raise AdapterError(f"no browser answers at {self} ({_reason(error)}): {_NO_BROWSER}") from None

    def stop(self) -> None:
        """Do nothing: the browser of others stays open."""

    def _asked(self) -> str:
        import http.client  # late: a browser of our own needs no HTTP
        import urllib.error
        import urllib.request

        path = self.url.path.removesuffix("/")
        path = path if path.endswith("/json/version") else f"{path}/json/version"
        user, _, host = self.url.netloc.rpartition("@")
        headers = {"Authorization": f"Basic {b64encode(unquote_to_bytes(user)).decode()}"} if user else {}
        request = urllib.request.Request(  # noqa: S310  (http or https)
            urlunsplit(self.url._replace(netloc=host, path=path, fragment="")),
            headers=headers | dict(self.headers or {}),
        )
        try:
            # A proxy for the web is none for a browser's debugging port.
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(request, timeout=_LIMIT) as answer:
                found = json.load(answer)
            return self._reachable(str(found["webSocketDebuggerUrl"]))
        except urllib.error.HTTPError as error:
            error.close()
            raise AdapterError(f"{self} answers {error.code}: {self._hint(error.code)}") from None
        except (ValueError, KeyError, TypeError, http.client.HTTPException):
            raise AdapterError(f"{self} is no DevTools address of Chromium") from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise AdapterError(f"no browser answers at {self} ({reason}): {_NO_BROWSER}") from None

    def _hint(self, code: int) -> str:
        if code in {401, 403}:
            return "its token or header is not accepted"
        from session_reuse._state.domains import is_address  # late: only after an error

        if code == 500 and not is_address(self.url.hostname or ""):
            return "Chromium takes an IP address or localhost only, so write the host as an IP address"
        return "no DevTools of Chromium are there; Firefox has none"

    def _reachable(self, websocket: str) -> str:
        """Return the websocket as seen from here: behind a port mapping, a browser names its own host."""
        found = urlsplit(websocket)
        if found.hostname in {"0.0.0.0", "127.0.0.1", "localhost", "::"} and found.netloc != self.url.netloc:  # noqa: S104
            scheme = "wss" if self.url.scheme == "https" else "ws"
            found = found._replace(scheme=scheme, netloc=self.url.netloc)
        return found._replace(query=found.query or self.url.query).geturl()

    def accept(self, product: str) -> None:
        """Refuse a browser that cannot be used, given its name and version.

        Raises:
            AdapterError: it is not Chromium, or too old.
        """
        if product.startswith("Firefox"):
            raise AdapterError(f"{self} is a Firefox: only Chromium and its kin have the DevTools that are needed")
        version = re.match(r"\w+/(\d+)", product)
        if version is not None and int(version[1]) < OLDEST_CHROMIUM:
            raise AdapterError(f"{product} at {self} is too old: version {OLDEST_CHROMIUM} or newer is needed")


def _reason(error: Exception) -> str:
    response: Any = getattr(error, "response", None)
    code = getattr(response, "status_code", None)
    return f"it answers {code}" if code else type(error).__name__
