"""Tabs, the DevTools targets behind them, and the frames in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from session_reuse._browser.origins import origin_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from session_reuse._browser.driver import Params


@dataclass(eq=False, slots=True)
class Tab:
    """A tab, popup or window.

    Attributes:
        key: names it in the mirror.
        frames: its frames by their id, also those in a separate process.
    """

    key: Hashable
    frames: dict[str, Frame] = field(default_factory=dict)

    @property
    def main(self) -> Frame | None:
        """The main frame, once it is known."""
        return next((frame for frame in self.frames.values() if frame.parent is None), None)


@dataclass(eq=False, slots=True)
class Target:
    """A DevTools session with a tab, or with a frame of it in a separate process.

    Attributes:
        cdp: what the driver sends commands over.
        tab: the tab.
        is_page: whether it is the tab itself, and no frame of it.
        tracked: origins whose IndexedDB is to report its changes over this session, and whether it is known to do so.
        is_adopted: whether it has told which documents it has. Documents that commit from then on report all that they store.
    """

    cdp: Any
    tab: Tab
    is_page: bool = True
    tracked: dict[str, bool] = field(default_factory=dict)
    is_adopted: bool = False


@dataclass(eq=False, slots=True)
class Frame:
    """A document in a frame.

    Attributes:
        id: of the frame.
        parent: id of the frame around it.
        loader: id of the document.
        origin: None for documents without a storage: error pages, sandboxed ones, `about:blank`.
        site: scheme and registrable domain, as the browser says.
        target: the session that it answers over.
        committed_at: monotonic seconds.
        is_loaded: whether its load event was seen.
        acts_when_left: whether it may have handlers that run when it is left, and store something.
        handles: name its window and document in the protocol, once they are known.
        is_read: whether its storage could be read when something announced that it will be left, or None before that, and when it
            goes on.
    """

    id: str
    parent: str | None
    loader: str
    origin: str | None
    site: str
    target: Target
    committed_at: float
    is_loaded: bool = False
    acts_when_left: bool = True
    handles: list[Params] = field(default_factory=list)
    is_read: bool | None = None

    @property
    def shares_storage(self) -> bool:
        """Whether it has the storage that top-level pages of its origin have: all frames around it are of its site, as far as known."""
        if self.origin is None or self.parent is None:
            return self.origin is not None
        above = self.target.tab.frames.get(self.parent)
        return above is not None and above.site == self.site and above.shares_storage

    @property
    def is_current(self) -> bool:
        """Whether it is still the document in its frame."""
        return self.target.tab.frames.get(self.id) is self


def frame_of(found: Params, target: Target, now: float) -> Frame:
    """Return the document that a `Page.Frame` of the protocol describes."""
    origin = None if found.get("unreachableUrl") else origin_of(str(found.get("securityOrigin", "")))
    parts = urlsplit(origin or "")
    site = f"{parts.scheme}://{found.get('domainAndRegistry') or parts.hostname}" if origin else ""
    return Frame(found["id"], found.get("parentId"), str(found.get("loaderId")), origin, site, target, now)
