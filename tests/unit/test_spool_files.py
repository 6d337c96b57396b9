"""What stands in the files of `spool_dir` is checked where they are read: the agent hears nothing of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from session_reuse._session.changes import Change, Found, Login, Snapshot, StoredKind
from session_reuse._session.spool.packing import packed_base, packed_change, packed_outbox, unpacked
from session_reuse._state.document import Body
from session_reuse._state.header import Header
from session_reuse.errors import CorruptStateError

NAME = "shop.example/alice"
BODY = Body(b'{"fingerprint":"shop.example/alice","storage_state":{"cookies":[],"origins":[]},"data":{}}', "-")
HEADER = Header(save_ids=("0" * 12,), created_at=1, saved_at=1)


def base(**changed: Any) -> bytes:
    """Return the file of a base, with such fields."""
    snapshot = Snapshot(kind=StoredKind.PRESENT, heard_at=0.0, invalidated_at=None, header=HEADER, body=BODY)
    return orjson.dumps(orjson.loads(packed_base(NAME, snapshot, 0.0, 0.0)) | changed)


def outbox(**changed: Any) -> bytes:
    """Return the file of one change that waits, with such fields."""
    change = Change(before=BODY, after=BODY, login=Login(Found.ABSENT, 0.0, 0.0), made_at=0.0, ttl=60.0)
    return packed_outbox(NAME, [packed_change(change, 0.0, 0.0) | changed])


def test_files_of_this_version_are_read() -> None:
    """Both kinds."""
    assert unpacked(base())["kind"] == "present"
    assert len(unpacked(outbox())["changes"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        base(header="SRS9" + HEADER.encode().decode()[4:]),
        base(kind="archived"),
        outbox(login=["1", "borrowed", 0.0, 0, 0, 0]),
        outbox(domains=["*"]),
        outbox(made_at=None),
    ],
    ids=["header", "kind", "login", "domains", "time"],
)
def test_files_of_a_newer_version_are_refused_as_a_whole(content: bytes) -> None:
    """Each by an error that the one who reads the folder expects."""
    with pytest.raises((CorruptStateError, KeyError, TypeError, ValueError)):
        unpacked(content)
