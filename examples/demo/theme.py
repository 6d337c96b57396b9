"""Colours and words that terminal, table and chart share."""

from __future__ import annotations

from typing import Final

from examples.demo.record import Kind

COLOURS: Final = {
    Kind.REUSED: "#2f9e6e",
    Kind.LOGIN: "#4c7bd9",
    Kind.DEGRADED: "#e8912d",
    Kind.FAILED: "#d64545",
}
WORDS: Final = {
    Kind.REUSED: "was logged in",
    Kind.LOGIN: "had to log in",
    Kind.DEGRADED: "started fresh: Redis away",
    Kind.FAILED: "failed",
}
OUTAGE: Final = "#d64545"
INK: Final = "#22303c"
FAINT: Final = "#8a97a3"
