"""`AllowedDomains`: the part of a session that is handed to an agent, and how its changes go back. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from session_reuse._state.document import Body, dump, load
from session_reuse._state.shapes import Cookie, Document, Json, JsonObject, OriginState, StorageState
from session_reuse._state.storage_state import cookie_identity
from session_reuse.errors import ConfigurationError

_HOST: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_DEVIATIONS: Final = frozenset("\u00df\u03c2\u200c\u200d")
"""Characters that IDNA 2003, and so Python, replaces or drops, and browsers keep (UTS 46): two names, two owners."""
if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_LOST: Final = "lost"
_Item = TypeVar("_Item", Cookie, OriginState)


class AllowedDomains:
    """Hosts whose cookies and storage an agent gets and may change.

    A bare name is that host. `*.` before a name is the host and its subdomains. Ports and schemes do not count. A cookie
    belongs to the host in its `domain`, so a cookie of `shop.example` is outside of `app.shop.example`.

    Args:
        patterns: hosts, such as `["shop.example", "*.pay.example"]`.

    Attributes:
        patterns: the same in lower case and ASCII.

    Raises:
        ConfigurationError: a pattern is no host, or names a public suffix, under which unrelated sites live.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        if isinstance(patterns, str):
            raise ConfigurationError(f"allowed_domains takes a list of hosts: write [{patterns!r}]")
        self.patterns: Final = tuple(dict.fromkeys(_normalised(pattern) for pattern in patterns))
        if not self.patterns:
            raise ConfigurationError("allowed_domains is empty, so that nothing would be handed out: name a host")
        self._hosts = frozenset(pattern.removeprefix("*.") for pattern in self.patterns)
        self._suffixes = tuple(pattern[1:] for pattern in self.patterns if pattern.startswith("*."))

    def __repr__(self) -> str:
        """Show the patterns."""
        return f"AllowedDomains({list(self.patterns)})"

    def allow(self, host: str) -> bool:
        """Return whether a host is inside."""
        return host in self._hosts or host.endswith(self._suffixes)

    def overlaps(self, other: AllowedDomains) -> bool:
        """Return whether there is a host inside of both."""
        return any(map(self.allow, other._hosts)) or any(map(other.allow, self._hosts))

    def allow_cookie(self, cookie: Cookie) -> bool:
        """Return whether a cookie is inside."""
        return self.allow(cookie["domain"].lower().removeprefix(".").strip("[]"))

    def allow_origin(self, origin: str) -> bool:
        """Return whether an origin is inside."""
        try:
            return self.allow((urlsplit(origin).hostname or "").removesuffix("."))
        except ValueError:
            return False

    def restrict_state(self, state: StorageState) -> StorageState:
        """Return a new state with the cookies and origins inside. Of the top level, only our own block is kept as well."""
        restricted: StorageState = {
            "cookies": [cookie for cookie in state["cookies"] if self.allow_cookie(cookie)],
            "origins": [entry for entry in state["origins"] if self.allow_origin(entry["origin"])],
        }
        block = state.get("session_reuse")
        if isinstance(block, dict):
            kept = restricted["session_reuse"] = dict(block)
            if _LOST in block:
                kept[_LOST] = [loss for origin, loss in _losses(block) if self.allow_origin(origin)]
        return restricted

    def restrict(self, document: Document) -> Document:
        """Return a new document with the part inside, and the notes of the agent."""
        return {**document, "storage_state": self.restrict_state(document["storage_state"])}

    def restrict_body(self, body: Body) -> Body:
        """Return the part of a document that is inside. Empty for none."""
        return dump(self.restrict(load(*body))) if body.data else body

    def join(self, stored: Document, inside: Document) -> Document:
        """Return the stored document with the part inside from another document.

        The part outside is unchanged.
        """
        there, mine = stored["storage_state"], inside["storage_state"]
        state: StorageState = {
            **there,
            "cookies": _replaced(there["cookies"], mine["cookies"], self.allow_cookie, cookie_identity),
            "origins": _replaced(
                there["origins"],
                mine["origins"],
                lambda entry: self.allow_origin(entry["origin"]),
                itemgetter("origin"),
            ),
        }
        block, brought = there.get("session_reuse"), mine.get("session_reuse")
        if isinstance(block, dict) and isinstance(brought, dict):
            others = [loss for origin, loss in _losses(block) if not self.allow_origin(origin)]
            lost: list[Json] = [*others, *(loss for origin, loss in _losses(brought) if self.allow_origin(origin))]
            state["session_reuse"] = {**block, _LOST: lost} if lost or _LOST in block else block
        elif isinstance(brought, dict):
            state["session_reuse"] = brought
        return {**stored, "storage_state": state, "data": inside["data"]}

    def join_body(self, stored: Body, inside: Body) -> Body:
        """Return the stored document with the part inside from another document."""
        return dump(self.join(load(*stored), load(*inside))) if stored.data else inside


def _replaced(
    stored: list[_Item], inside: list[_Item], is_inside: Callable[[_Item], bool], identity: Callable[[_Item], object]
) -> list[_Item]:  # fmt: skip
    """Return the stored items with those inside replaced, removed, or added at the end."""
    mine = {identity(item): item for item in inside if is_inside(item)}
    kept: list[_Item] = []
    for item in stored:
        if not is_inside(item):
            kept.append(item)
        elif identity(item) in mine:  # a second one of the same identity ends: the last one counts, and it is old
            kept.append(mine.pop(identity(item)))
    return kept + list(mine.values())


def _losses(block: JsonObject) -> list[tuple[str, JsonObject]]:
    """Return what a capture could not hold, each with its origin."""
    lost = block.get(_LOST)
    found = [(loss.get("origin"), loss) for loss in (lost if isinstance(lost, list) else ()) if isinstance(loss, dict)]
    return [(origin, loss) for origin, loss in found if isinstance(origin, str)]


def _normalised(pattern: str) -> str:
    """Return a pattern in lower case and ASCII, checked."""
    if not isinstance(pattern, str):
        raise ConfigurationError(f"allowed_domains takes hosts, not a {type(pattern).__name__}")
    host, is_tree = pattern.strip().lower().removesuffix("."), pattern.strip().startswith("*.")
    host = host.removeprefix("*.").strip("[]")
    if not is_tree and is_address(host):
        return str(ip_address(host))  # as browsers write it
    if not _DEVIATIONS.isdisjoint(host):
        raise ConfigurationError(f"allowed_domains: {pattern!r} names another host in browsers: write it as xn--...")
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name) or is_address(name):
        raise ConfigurationError(
            f"allowed_domains: {pattern!r} is no host: write shop.example, or *.shop.example with its subdomains"
        )
    if is_public_suffix(name):
        raise ConfigurationError(
            f"allowed_domains: {pattern!r} is a public suffix, under which unrelated sites live: name the site"
        )
    return f"*.{name}" if is_tree else name


def is_address(host: str) -> bool:
    """Return whether a host is an IP address, as browsers take one."""
    try:
        return "%" not in str(ip_address(host))  # a browser takes no zone
    except ValueError:
        return False


def is_under(host: str, domain: str) -> bool:
    """Return whether a host is a domain or one of its subdomains."""
    return host == domain or host.endswith(f".{domain}")


def is_public_suffix(name: str) -> bool:
    """Return whether unrelated sites live under a domain, as the public suffix list says."""
    return bool(_suffix_list().is_public(name))


def registrable_domain(host: str) -> str | None:
    """Return the domain of a host that one owner has registered, or None for a name that the public suffix list does not know."""
    domain: str | None = _suffix_list().privatesuffix(host)
    return domain


@cache
def _suffix_list() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # 0.05 s to load (2026-11), once and only for those who need it

    return PublicSuffixList(accept_unknown=False)  # localhost and intranet names are no suffixes
