"""`python -m session_reuse.cli`: the command line. Must hold nothing of its own."""

from __future__ import annotations

from session_reuse.cli.entry import main

if __name__ == "__main__":
    main()
