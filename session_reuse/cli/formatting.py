"""Numbers, durations and names for people."""

from __future__ import annotations

from typing import Final
from unicodedata import east_asian_width

GAP: Final = "  "
"""Between two columns."""
_UNITS: Final = ((31_557_600, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units, such as `23 h 59 min`. None means no end."""
    if seconds is None:
        return "for ever"
    if seconds < 0:
        return "0 s"
    if seconds < 0.9995:  # from there on, the three digits would be 1e+03
        return f"{seconds * 1000:.3g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    position = next(index for index, (size, _) in enumerate(_UNITS) if whole >= size)
    parts = []
    for size, unit in _UNITS[position : position + 2]:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def short_duration(seconds: float | None) -> str:
    """Return a length of time in one unit and few characters, such as `23h`. None means no end."""
    if seconds is None:
        return "never"
    whole = max(0, int(seconds))
    length, unit = next(((length, unit) for length, unit in _UNITS if whole >= length), (1, "s"))
    return f"{whole // length}{unit[0]}"


def size(count: int) -> str:
    """Return a number of bytes, such as `12.3 KiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """Return a foreign name without control characters, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def masked(length: int) -> str:
    """Return the text in place of a masked value of this length."""
    return f"••••• ({plural(length, 'character')})"


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text that takes so many columns, with spaces after it, or before it."""
    spaces = " " * (width - columns_of(text))
    return f"{spaces}{text}" if right else f"{text}{spaces}"
