"""Capture without the DevTools protocol: Firefox and WebKit, by Playwright's own means and without IndexedDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_reuse._browser import javascript
from session_reuse._browser.origins import items_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from session_reuse._browser.driver import PageReader
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.storage.mirror import StorageMirror
    from session_reuse._state.storage_state import StorageState


def read_without_protocol(mirror: StorageMirror, reader: PageReader, delivered: Collection[str]) -> Flow[StorageState]:
    """Read cookies and localStorage of all origins, and sessionStorage of the pages that are open.

    Args:
        mirror: to bring up to date.
        reader: of the browser.
        delivered: origins whose documents have started with the init scripts.
    """
    mirror.source = "storage_state"
    found = yield reader.storage_state()
    mirror.cookies_read(found["cookies"])
    stored = {entry["origin"]: items_of(entry, "localStorage") for entry in found["origins"]}
    pages = reader.open_pages()
    for origin in sorted({*stored, *mirror.visited, *pages}):
        if origin in delivered:
            mirror.confirm(origin)  # no event tells what was there in between
        reading = mirror.begin_read("save", origin)
        session = None
        try:
            if origin in pages:
                session = (yield reader.evaluate_in_page(pages[origin], javascript.call("storage_read")))["session"]
        except reader.errors:
            pass  # the page has gone meanwhile
        finally:
            mirror.finish_read(reading, stored.get(origin, []), session)
    return mirror.state()
