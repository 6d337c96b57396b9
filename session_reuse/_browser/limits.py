"""Seconds that a browser may take. Each is far beyond what it takes: 5 to 50 ms on an idle machine, a second on a busy one."""

from __future__ import annotations

COMMAND = 3.0
"""A DevTools command: a page that hangs does not answer."""
SCRIPT = 4.0
"""A script of ours in a page, such as a copy of the databases."""
INIT_SCRIPT = 2.0
"""Until all tabs have taken an init script: one that is on its way to a slow site takes it when it has arrived."""
BROWSER = 10.0
"""A command to the browser itself, which no page holds up."""
BLANK_PAGE = 10.0
"""A step on a page of ours, which holds up nothing."""
ATTACH = 5.0
"""Until a new page is followed, before its agent sends it somewhere: events of its first document would be missed."""
CLOSE = 1.0
"""Until a page has been read, before its agent closes it."""
FILL = 8.0
"""Filling all origins that are too large for the init script. Far below `START`, which gives up the whole restore."""
REVISIT = 4.0
"""Visiting origins again whose pages were gone before they could be read."""
CAPTURE = 6.0
"""A capture at exit. After that, what was seen so far is kept."""
CONTEXT = 15.0
"""Closing a context, by a browser that hangs."""
VERIFY = 30.0
"""The user's check of a restored login."""
UNDO = 2.0
"""What is under way when a start is cancelled, or a browser released. It goes on in the background."""
OPEN = 5.0
"""Opening and closing a connection."""
START = 15.0
"""Connecting and restoring, before an agent starts without. Browser-use gives its handlers 30."""
