"""`python -m session_reuse.cli`: the command line."""

from __future__ import annotations

from session_reuse.cli.entry import main

if __name__ == "__main__":
    main()
