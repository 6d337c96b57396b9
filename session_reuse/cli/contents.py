"""Describe a stored session: as JSON first, and tables made from it. Values are masked unless revealed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from session_reuse._state.compression import NAMES
from session_reuse._state.storage_state import playwright_cookie
from session_reuse._telemetry.spans import fingerprint_hash
from session_reuse.cli.connection import Stored
from session_reuse.cli.formatting import duration, masked, plural, short_duration, size
from session_reuse.cli.output import Output, Table

if TYPE_CHECKING:
    from session_reuse._state.shapes import Cookie, OriginState, StorageItem

Described: TypeAlias = dict[str, Any]
"""JSON of the command, as its documentation describes it."""
_STORAGES = ("localStorage", "sessionStorage")


def described(stored: Stored, *, reveal: bool) -> Described:
    """Return a stored session as JSON, with times in unix seconds. A masked value is null, with its length."""
    header, document = stored.header, stored.document
    state, is_encrypted = document["storage_state"], header.flags[1] != "-"
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for name, value in document["data"].items()
    }
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
        "encrypted": is_encrypted,
        "key_id": header.key_id if is_encrypted else None,
        "compression": NAMES.get(header.flags[0], header.flags[0]),
        "cookies": [_cookie(cookie, reveal) for cookie in state["cookies"]],
        "origins": [_origin(entry, reveal) for entry in state["origins"]],
        "data": [_item(name, text, reveal) for name, text in texts.items()],
    }


def _item(name: str, value: str, reveal: bool) -> Described:
    return {"name": name, "value": value if reveal else None, "length": len(value)}


def _items(items: Iterable[StorageItem], reveal: bool) -> list[Described]:
    return [_item(item["name"], item["value"], reveal) for item in items]


def _cookie(cookie: Cookie, reveal: bool) -> Described:
    expires = cookie.get("expires")
    return _item(cookie["name"], cookie["value"], reveal) | {
        "domain": cookie["domain"],
        "path": playwright_cookie(cookie)["path"],
        "expires": expires if isinstance(expires, int | float) and expires > 0 else None,
        "httpOnly": bool(cookie.get("httpOnly")),
        "secure": bool(cookie.get("secure")),
        "sameSite": cookie.get("sameSite"),
    }


def _origin(entry: OriginState, reveal: bool) -> Described:
    databases = []
    for each in (*entry.get("indexedDB", ()), *entry.get("indexedDBRich", ())):
        stores = each.get("stores")  # text in those that Playwright's form cannot hold
        databases.append({"name": each.get("name"), "stores": len(stores) if isinstance(stores, list) else None})
    return {
        "origin": entry["origin"],
        "localStorage": _items(entry["localStorage"], reveal),
        "sessionStorage": _items(entry.get("sessionStorage", ()), reveal),
        "indexedDB": databases,
    }


def print_contents(output: Output, contents: Described) -> None:
    """Print a description as tables, for people."""
    now = time.time()
    tables = [_facts(contents, now)]
    if contents["cookies"]:
        tables.append(_cookies(contents["cookies"], now))
    if contents["origins"]:
        sections = (*_STORAGES, "indexedDB")
        made = Table("origin", *sections, right=sections)
        for entry in contents["origins"]:
            made.add_row(entry["origin"], *(str(len(entry[name])) for name in sections))
        tables.append(made)
    items = [(each["origin"], name, item) for each in contents["origins"] for name in _STORAGES for item in each[name]]
    items += [("", "data", item) for item in contents["data"]]
    if items:
        made = Table("item", "in", "origin", "value")
        for origin, section, item in items:
            made.add_row(item["name"], section, origin, _value(item))
        tables.append(made)
    output.show("\n\n".join("\n".join(each.lines()) for each in tables))


def _facts(contents: Described, now: float) -> Table:
    made = Table("session", contents["fingerprint"])
    for name, value in (
        ("version", f"{contents['version']} ({plural(contents['version'], 'save')})"),
        ("first saved", _when(contents["created_at"], now)),
        ("last saved", _when(contents["saved_at"], now)),
        ("to live", duration(contents["ttl"])),
        ("retired", _when(contents["retire_at"], now) if contents["retire_at"] else "no limit of age"),
        ("size", f"{size(contents['size'])}, compression {contents['compression']}"),
        ("encrypted", f"yes, with key {contents['key_id']}" if contents["encrypted"] else "no"),
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
    made = Table("cookie", "domain", "path", "expires", "flags", "value")
    for cookie in cookies:
        flags = [name for name in ("httpOnly", "secure") if cookie[name]] + [str(cookie["sameSite"] or "")]
        expires = cookie["expires"]
        expiry = "with the browser" if expires is None else "expired"
        if expires is not None and expires > now:
            expiry = f"in {short_duration(expires - now)}"
        made.add_row(cookie["name"], cookie["domain"], cookie["path"], expiry, " ".join(flags).strip(), _value(cookie))
    return made


def _value(item: Described) -> str:
    return masked(item["length"]) if item["value"] is None else str(item["value"])
