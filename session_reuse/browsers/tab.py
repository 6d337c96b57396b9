"""A page of Playwright and the debugging session beside it. Must never run a script in the page's own world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from session_reuse.browsers import javascript
from session_reuse.browsers.origins import origin_of, storage_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse.browsers.hidden_page import Client
    from session_reuse.browsers.steps import Steps

WORLD: Final = "session_reuse"
"""Name of the isolated world in which our scripts run: pages neither see it nor reach into it."""
BINDING: Final = "sessionReuseLeft"
"""What `leaving.js` calls, as a `Runtime.bindingCalled` event, when a document is left."""
_LAST_ACTS: Final = frozenset({"pagehide", "unload", "visibilitychange", "freeze"})
"""Events of a document that is left, after `beforeunload`."""


def has_last_acts(kinds: set[str]) -> bool:
    """Return whether a document that listens to these kinds of events may store something while it is being left."""
    return not kinds.isdisjoint(_LAST_ACTS)


@dataclass(slots=True, eq=False)
class Tab:
    """A page of the agent.

    Attributes:
        page: Playwright's.
        client: the face in use.
        cdp: its debugging session, once there is one.
        frame_id: of its main frame, once its documents are followed.
        tracked: the origins whose databases are watched.
        unhook: gives the page its own `close` back.
        shown: origin of the document in it, until it has told all.
        acts_when_left: whether that document may store something after it has told.
    """

    page: Any
    client: Client
    cdp: Any = None
    frame_id: str = ""
    tracked: set[str] = field(default_factory=set)
    unhook: Callable[[], None] = lambda: None
    shown: str | None = None
    acts_when_left: bool = False

    @property
    def origin(self) -> str | None:
        """Origin of the document in it."""
        return origin_of(self.page.url)

    def send(self, method: str, params: dict[str, Any]) -> Any:
        """Send a command; a step.

        Raises:
            TimeoutError: the session has been given up, perhaps while the caller waited for another answer.
        """
        if self.cdp is None:
            raise TimeoutError("the debugging session of this tab has been given up")
        return self.client.send(self.cdp, method, params)

    def follow_documents(self) -> Steps[None]:
        """Have the debugging session tell, from now on, what a document had stored when it is left."""
        if self.frame_id:
            return
        leaving = javascript.call("leaving", javascript.literal(BINDING))
        tree, *_ = yield [
            self.send("Page.getFrameTree", {}),
            self.send("Page.enable", {}),
            self.send("Runtime.enable", {}),  # without it the script below does not run at all (Chromium 156)
            self.send("Runtime.addBinding", {"name": BINDING, "executionContextName": WORLD}),
            self.send(
                "Page.addScriptToEvaluateOnNewDocument",
                {"source": leaving, "worldName": WORLD, "runImmediately": True},
            ),
        ]
        self.frame_id = tree["frameTree"]["frame"]["id"]

    def look_for_last_acts(self) -> Steps[None]:
        """Learn whether the document does something when it is left, after `leaving.js` has told what it has stored.

        Only `window` and `document` are asked for in the page's own world: no page can replace them.
        """
        found = yield [self.send("Runtime.evaluate", {"expression": name}) for name in ("window", "document")]
        ids = [answer["result"]["objectId"] for answer in found]
        found = yield [self.send("DOMDebugger.getEventListeners", {"objectId": each}) for each in ids]
        kinds = {listener["type"] for answer in found for listener in answer["listeners"]}
        self.acts_when_left = has_last_acts(kinds)

    def stored(self, origin: str, *, is_local: bool) -> Any:
        """Ask for the items of a web storage that is not partitioned; a step."""
        storage_id = {"storageKey": storage_key(origin), "isLocalStorage": is_local}
        return self.send("DOMStorage.getDOMStorageItems", {"storageId": storage_id})

    def store(self, origin: str, key: str, value: str, *, is_local: bool) -> Any:
        """Set an item of such a storage; a step."""
        storage_id = {"storageKey": storage_key(origin), "isLocalStorage": is_local}
        return self.send("DOMStorage.setDOMStorageItem", {"storageId": storage_id, "key": key, "value": value})

    def evaluate_apart(self, expression: str) -> Steps[Any]:
        """Evaluate in the isolated world, where the page's scripts have replaced nothing."""
        yield from self.follow_documents()
        world = yield self.send("Page.createIsolatedWorld", {"frameId": self.frame_id, "worldName": WORLD})
        answer = yield self.send(
            "Runtime.evaluate",
            {
                "expression": expression,
                "contextId": world["executionContextId"],
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        return answer.get("result", {}).get("value")
