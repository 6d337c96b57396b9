"""The JSON document inside a stored value: fingerprint, storage state, the agent's data."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple

import orjson

from session_reuse.errors import CorruptStateError, InvalidStateError

Document = dict[str, Any]

_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
FAST_DIALECT: Final = "o"
SURROGATE_DIALECT: Final = "s"
"""ASCII with escapes: the only JSON that carries a lone surrogate, which localStorage may hold and UTF-8 may not."""


class Body(NamedTuple):
    """A document as JSON, and the dialect it is in."""

    data: bytes
    dialect: str


def dump(document: Document) -> Body:
    """Return the document as JSON, and the dialect it is in.

    Raises:
        InvalidStateError: a value that JSON cannot hold; the message names its place, never the value.
    """
    try:
        return Body(orjson.dumps(document, option=_STRICT), FAST_DIALECT)
    except TypeError:
        check_json(document)
    try:
        text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return Body(text.encode(), SURROGATE_DIALECT)
    except (TypeError, ValueError, RecursionError):
        raise InvalidStateError("the session is nested too deeply or refers to itself") from None


def load(data: bytes, dialect: str) -> Document:
    """Return the document that `dump` wrote.

    Raises:
        CorruptStateError: not JSON of that dialect, or not a document.
    """
    try:
        document = orjson.loads(data) if dialect == FAST_DIALECT else json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptStateError("the body is not JSON") from None
    if (
        type(document) is not dict
        or type(document.get("storage_state")) is not dict
        or type(document.get("data")) is not dict
    ):
        raise CorruptStateError("the body is not a session")
    return document


def check_json(value: object, place: str = "session", depth: int = 0) -> None:
    """Raise InvalidStateError, naming the place, unless the value is made of JSON's own types.

    NaN and infinity are refused too: JSON has no word for them, and a reader would find null.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None or kind is int:
        return
    if depth > _MAX_DEPTH:
        raise InvalidStateError(f"{place} is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidStateError(f"{place} is not a finite number")
    elif isinstance(value, dict):
        _check_object(value, place, depth)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, f"{place}[{index}]", depth + 1)
    elif not isinstance(value, str | int):
        raise InvalidStateError(f"{place} is a {kind.__name__}, which JSON cannot hold")


def check_nesting(document: Document) -> None:
    """Raise InvalidStateError for a loaded document that is nested so deeply that it could not be saved again."""
    check_json(document["data"], "data")
    try:
        orjson.dumps(document["storage_state"])  # refuses 254 levels, and costs a tenth of looking ourselves
    except TypeError:
        check_json(document["storage_state"], "storage_state")


def _check_object(value: dict[Any, Any], place: str, depth: int) -> None:
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidStateError(f"{place} has a key of type {type(key).__name__}; JSON keys are strings")
        check_json(item, f"{place}.{key[:40]}", depth + 1)


_MAX_DEPTH: Final = 200
