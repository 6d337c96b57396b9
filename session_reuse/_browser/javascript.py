"""The JavaScript that runs in pages, kept as package data."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import orjson


@cache
def source(name: str) -> str:
    """Return one of our functions, a file of `js/`, as a JavaScript expression without its leading comment."""
    text = (files(__package__) / "js" / f"{name}.js").read_text("utf-8")
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if not line.startswith("//"))
    return "\n".join(lines[start:])


def literal(value: object) -> str:
    """Return a JSON value as a JavaScript literal in ASCII. Lone surrogates stay what they are."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def json_text(value: object) -> str:
    """Return a JSON value as text for `JSON.parse`, not safe as source code."""
    try:
        # Ten times faster than `literal`.
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate
        return literal(value)


def call(name: str, *arguments: str) -> str:
    """Return an expression that calls one of our functions with JavaScript expressions, as of `literal` and `source`."""
    return f"({source(name)})({','.join(arguments)})"
