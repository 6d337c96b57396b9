"""What the files of a session hold: JSON of its base, and of the changes that wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson

from session_reuse._session.changes import Change, Found, Login, Snapshot, StoredKind
from session_reuse._state.document import Body
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.header import Header
from session_reuse._store.interface import Lease, SessionUse
from session_reuse._stored_form import decode_document
from session_reuse.errors import CorruptStateError
from session_reuse.outcome import Outcome

_SCHEMA: Final = 2
_PLAIN: Final = (
    "name", "mark_id", "ttl", "agent_id", "release", "vouched", "score_change", "mark_only", "ids", "sent_as",
)  # fmt: skip
"""The fields of a change that are JSON as they are."""


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the content of either file.

    Raises:
        CorruptStateError: of an unknown schema, or damaged.
        ValueError: no JSON. A KeyError, TypeError or AttributeError tells of JSON that is something else.
    """
    found: dict[str, Any] = orjson.loads(content)
    if found.get("schema") != _SCHEMA:
        raise CorruptStateError("a file of an unknown schema")
    for packed in found.get("changes", ()):
        decode_document(packed["after"].encode(), packed["dialects"][1], found["fingerprint"])
        unpacked_change(packed, {}, 0.0, 0.0)  # a newer version may know more kinds, and the agent must not hear of it
    if "changes" not in found:
        unpacked_base(found, 0.0, 0.0, None)
    return found


def packed_outbox(fingerprint: str, changes: Sequence[dict[str, Any]]) -> bytes:
    """Return the content of an outbox."""
    return orjson.dumps({"schema": _SCHEMA, "fingerprint": fingerprint, "changes": changes})


def packed_change(change: Change, elapsed: float, wall: float) -> dict[str, Any]:
    """Return a change, for `packed_outbox`. Times are unix seconds: `elapsed()` begins anew with the host."""
    login = change.login
    return {
        **{name: getattr(change, name) for name in _PLAIN},
        "before": change.before.data.decode(),
        "after": change.after.data.decode(),
        "whole": change.whole.data.decode(),
        "dialects": [change.before.json_encoding, change.after.json_encoding, change.whole.json_encoding],
        "login": [
            f"{id(login):x}", login.found.value, wall - (elapsed - login.heard_at), login.created_at, login.invalidated_at,
            login.retire_at,
        ],
        "made_at": wall - (elapsed - change.made_at),
        "lease": [change.lease.token, change.lease.holder] if change.lease else None,
        "domains": change.domains.patterns if change.domains is not None else None,
        "uses": [asdict(use) for use in change.uses],
    }  # fmt: skip


def unpacked_change(packed: dict[str, Any], logins: dict[str, Login], elapsed: float, wall: float) -> Change:
    _, found, heard_at, created_at, invalidated_at, retire_at = packed["login"]
    since = max(0.0, wall - heard_at)
    login = logins.setdefault(  # by all of it: two processes may have had a login at one address
        repr(packed["login"]),
        Login(Found(found), elapsed - since, wall - since, created_at, invalidated_at, retire_at),
    )
    before, after, whole = (
        Body(packed[name].encode(), encoding)
        for name, encoding in zip(("before", "after", "whole"), packed["dialects"], strict=True)
    )
    return Change(
        **{name: packed[name] for name in _PLAIN},
        is_adopted=True,
        before=before,
        after=before if after == before else after,
        whole=whole,
        login=login,
        made_at=elapsed - max(0.0, wall - packed["made_at"]),
        lease=Lease(*packed["lease"]) if packed["lease"] else None,
        domains=AllowedDomains(packed["domains"]) if packed["domains"] else None,
        uses=tuple(map(_unpacked_use, packed["uses"])),
    )


def _unpacked_use(packed: dict[str, Any]) -> SessionUse:
    domains = packed["allowed_domains"]
    known = {"outcome": Outcome(packed["outcome"]), "allowed_domains": tuple(domains) if domains else None}
    return SessionUse(**(packed | known))


def packed_base(fingerprint: str, base: Snapshot, elapsed: float, wall: float) -> bytes:
    return orjson.dumps(
        {
            "schema": _SCHEMA,
            "fingerprint": fingerprint,
            "kind": base.kind.value,
            "heard_at": wall - (elapsed - base.heard_at),
            "invalidated_at": base.invalidated_at,
            "header": base.header.encode().decode("ascii") if base.header else None,
            "body": [base.body.data.decode(), base.body.json_encoding],
        }
    )


def unpacked_base(found: dict[str, Any], elapsed: float, wall: float, last_held: Snapshot | None) -> Snapshot:
    body, json_encoding = found["body"]
    heard_at = elapsed - max(0.0, wall - float(found["heard_at"]))
    return Snapshot(
        kind=StoredKind(found["kind"]),
        heard_at=heard_at,
        answered_at=heard_at,
        invalidated_at=found["invalidated_at"],
        header=Header.decode(found["header"].encode("ascii")) if found["header"] else None,
        body=Body(body.encode(), json_encoding),
        lost=None if found["header"] else last_held,
    )
