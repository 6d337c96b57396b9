"""The JSON text of a stored document, and the check that values are JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

import orjson

from session_reuse._state.shapes import Document
from session_reuse.errors import CorruptStateError, InvalidStateError

# orjson would write data classes, dates and subclasses as JSON, and a restore would return other types.
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_MAX_DEPTH: Final = 200  # orjson refuses 254 levels
_MAX_BITS: Final = 14_280
"""Of 4,299 digits: Python writes and reads no longer ones (`sys.set_int_max_str_digits`)."""
PLAIN_JSON: Final = "o"
"""JSON in UTF-8."""
ESCAPED_JSON: Final = "s"
"""JSON in ASCII with escapes. localStorage may hold a lone surrogate, which UTF-8 cannot encode."""


class Body(NamedTuple):
    """A document as JSON, and the encoding of this JSON: `PLAIN_JSON` or `ESCAPED_JSON`."""

    data: bytes
    json_encoding: str


NO_BODY: Final = Body(b"", PLAIN_JSON)
"""Stands for no document."""


def dump(document: Mapping[str, object]) -> Body:
    """Return the document as JSON.

    Raises:
        InvalidStateError: a value is not JSON. The message names its place and not the value.
    """
    try:
        return Body(orjson.dumps(document, option=_STRICT), PLAIN_JSON)
    except TypeError:
        check_json(document)  # names the place of a wrong value. A lone surrogate is none, and is escaped below
    try:
        text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return Body(text.encode(), ESCAPED_JSON)
    except (TypeError, ValueError, RecursionError):
        raise InvalidStateError("the session is nested too deeply or refers to itself") from None


def empty(fingerprint: str) -> Body:
    """Return the document of a session that holds nothing."""
    return dump({"fingerprint": fingerprint, "storage_state": {}, "data": {}})


def load(data: bytes, json_encoding: str) -> Document:
    """Return the document that `dump` wrote.

    Raises:
        CorruptStateError: not JSON of that encoding, or not a document.
    """
    try:
        document = orjson.loads(data) if json_encoding == PLAIN_JSON else json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptStateError("the body is not JSON") from None
    if (
        type(document) is not dict
        or type(document.get("storage_state")) is not dict
        or type(document.get("data")) is not dict
    ):
        raise CorruptStateError("the body is not a session")
    return cast("Document", document)


def check_json(value: object, place: str = "session", depth: int = 0) -> None:
    """Raise InvalidStateError, naming the place, unless the value is made of the types of JSON."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if isinstance(value, int | float):
        _check_number(value, place)
        return
    if depth > _MAX_DEPTH:
        raise InvalidStateError(f"{place} is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        _check_object(value, place, depth)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_json(item, f"{place}[{index}]", depth + 1)
    elif not isinstance(value, str):
        raise InvalidStateError(f"{place} is of the type {kind.__name__}, which JSON cannot hold")


def check_nesting(document: Document) -> None:
    """Raise InvalidStateError for a loaded document that is nested too deeply to be saved again."""
    check_json(document["data"], "data")
    try:
        orjson.dumps(document["storage_state"])  # refuses 254 levels, in a tenth of the time of `check_json`
    except TypeError:
        check_json(document["storage_state"], "storage_state")


def _check_number(value: float, place: str) -> None:
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise InvalidStateError(f"{place} is a number of 4,300 digits or more")
    elif not math.isfinite(value):  # JSON has no NaN and no infinity: a reader would find null
        raise InvalidStateError(f"{place} is not a finite number")


def _check_object(value: dict[object, object], place: str, depth: int) -> None:
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidStateError(f"{place} has a key of type {type(key).__name__}, but JSON keys are strings")
        check_json(item, f"{place}.{key[:40]}", depth + 1)
