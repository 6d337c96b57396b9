"""A stored session described in words: JSON first, tables made from it. Values are masked unless revealed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from session_reuse._state.compression import NAMES
from session_reuse._telemetry.spans import fingerprint_hash
from session_reuse.cli.connection import Stored
from session_reuse.cli.formatting import duration, masked, plural, printable, short_duration, size
from session_reuse.cli.output import Output, table

if TYPE_CHECKING:
    from rich.table import Table

    from session_reuse._state.shapes import Cookie, OriginState, StorageItem

Described = dict[str, Any]


def described(stored: Stored, *, reveal: bool) -> Described:
    """Return what is stored, for programs: times in unix seconds; a value is null unless revealed, its length is given."""
    header, document = stored.header, stored.document
    state = document["storage_state"]
    return {
        "fingerprint": stored.fingerprint,
        "fingerprint_hash": fingerprint_hash(stored.fingerprint),
        "version": header.version,
        "created_at": header.created_at / 1000,
        "saved_at": header.saved_at / 1000,
        "retire_at": header.retire_at / 1000 if header.retire_at else None,
        "ttl": stored.ttl,
        "size": len(stored.value),
        "uses": header.uses,
        "error_score": header.score / 10,
        "encrypted": header.flags[1] != "-",
        "key_id": header.key_id if header.flags[1] != "-" else None,
        "compression": NAMES.get(header.flags[0], header.flags[0]),
        "cookies": [_cookie(cookie, reveal) for cookie in state["cookies"]],
        "origins": [_origin(entry, reveal) for entry in state["origins"]],
        "data": [_item(name, _text(value), reveal) for name, value in document["data"].items()],
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _item(name: str, value: str, reveal: bool) -> Described:
    return {"name": name, "value": value if reveal else None, "length": len(value)}


def _cookie(cookie: Cookie, reveal: bool) -> Described:
    expires = cookie.get("expires")
    return _item(cookie["name"], cookie["value"], reveal) | {
        "domain": cookie["domain"],
        "path": cookie.get("path", "/"),
        "expires": expires if isinstance(expires, int | float) and expires > 0 else None,
        "httpOnly": bool(cookie.get("httpOnly")),
        "secure": bool(cookie.get("secure")),
        "sameSite": cookie.get("sameSite"),
    }


def _origin(entry: OriginState, reveal: bool) -> Described:
    databases = []
    for each in entry.get("indexedDB", ()):
        stores = each.get("stores")
        databases.append({"name": each["name"], "stores": len(stores) if isinstance(stores, list) else 0})
    return {
        "origin": entry["origin"],
        "localStorage": _items(entry["localStorage"], reveal),
        "sessionStorage": _items(entry.get("sessionStorage", ()), reveal),
        "indexedDB": databases,
    }


def _items(items: Iterable[StorageItem], reveal: bool) -> list[Described]:
    return [_item(item["name"], item["value"], reveal) for item in items]


# For people ---------------------------------------------------------------------------------------------------------


def print_contents(output: Output, contents: Described) -> None:
    """Print a description as tables."""
    now = time.time()
    output.show(_facts(contents, now))
    if contents["cookies"]:
        output.show("")
        output.show(_cookies(contents["cookies"], now))
    if contents["origins"]:
        output.show("")
        output.show(_origins(contents["origins"]))
    items = [
        (entry["origin"], section, item) for entry in contents["origins"] for section, item in _stored_items(entry)
    ]
    items += [("", "data", item) for item in contents["data"]]
    if items:
        output.show("")
        output.show(_values(items))


def _stored_items(entry: Described) -> list[tuple[str, Described]]:
    return [(section, item) for section in ("localStorage", "sessionStorage") for item in entry[section]]


def _facts(contents: Described, now: float) -> Table:
    sealed = f"yes, with key {contents['key_id']}" if contents["encrypted"] else "no"
    made = table("session", printable(contents["fingerprint"]))
    for name, value in (
        ("version", f"{contents['version']} ({plural(contents['version'], 'save')})"),
        ("first saved", _when(contents["created_at"], now)),
        ("last saved", _when(contents["saved_at"], now)),
        ("to live", duration(contents["ttl"])),
        ("retired", _when(contents["retire_at"], now) if contents["retire_at"] else "no limit of age"),
        ("size", f"{size(contents['size'])}, compression {contents['compression']}"),
        ("encrypted", sealed),
        ("uses", str(contents["uses"]) if contents["uses"] else "not counted (max_uses is not set)"),
        ("error score", f"{contents['error_score']:g}"),
        ("hash in spans", contents["fingerprint_hash"]),
    ):
        made.add_row(name, value)
    return made


def _when(moment: float, now: float) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{stamp} ({duration(now - moment)} ago)" if moment <= now else f"{stamp} (in {duration(moment - now)})"


def _cookies(cookies: list[Described], now: float) -> Table:
    made = table("cookie", "domain", "path", "expires", "flags", "value")
    for cookie in cookies:
        flags = [name for name in ("httpOnly", "secure") if cookie[name]]
        made.add_row(
            printable(cookie["name"]), printable(cookie["domain"]), printable(cookie["path"]), _expiry(cookie, now),
            " ".join([*flags, str(cookie["sameSite"] or "")]).strip(), _value(cookie),
        )  # fmt: skip
    return made


def _expiry(cookie: Described, now: float) -> str:
    if cookie["expires"] is None:
        return "with the browser"
    return f"in {short_duration(cookie['expires'] - now)}" if cookie["expires"] > now else "expired"


def _origins(origins: list[Described]) -> Table:
    counted = ("localStorage", "sessionStorage", "indexedDB")
    made = table("origin", *counted, right=counted)
    for entry in origins:
        made.add_row(printable(entry["origin"]), *(str(len(entry[section])) for section in counted))
    return made


def _values(items: list[tuple[str, str, Described]]) -> Table:
    made = table("item", "in", "origin", "value")
    for origin, section, item in items:
        made.add_row(printable(item["name"]), section, printable(origin), _value(item))
    return made


def _value(item: Described) -> str:
    return masked(item["length"]) if item["value"] is None else printable(item["value"])
