"""Cookies from other tools: cookies.txt and what browser extensions export."""

from __future__ import annotations

import http.cookiejar
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_reuse import blocking
from session_reuse.cli.cookies_txt import cookies_from_txt, cookies_txt
from tests.cli.conftest import CANARIES, CommandLine

TXT = (
    "# Netscape HTTP Cookie File\n"
    "# a comment\n\n"
    ".shop.example\tTRUE\t/\tTRUE\t4000000000\tsid\tone\n"
    "#HttpOnly_shop.example\tFALSE\t/account\tFALSE\t0\ttab\ttwo\n"
    "shop.example\tFALSE\t/\tFALSE\t0\tempty\t\n"
)
EDITOR = [
    {
        "domain": "shop.example", "expirationDate": 4000000000.5, "hostOnly": False, "httpOnly": True, "name": "sid",
        "path": "/", "sameSite": "no_restriction", "secure": True, "session": False, "storeId": "0", "value": "one",
    },
    {
        "domain": ".www.shop.example", "hostOnly": True, "httpOnly": False, "name": "tab", "path": "/", "value": "two",
        "sameSite": None, "secure": False, "session": True, "storeId": None, "expirationDate": None,
    },
]  # fmt: skip


def imported(cli: CommandLine, name: str) -> list[Any]:
    """Return the cookies of a session as name, value, domain, expiry."""
    found = cli("show", name, "--reveal", "--json").json["cookies"]
    return [(each["name"], each["value"], each["domain"], each["expires"]) for each in found]


def test_a_cookies_txt_is_imported(cli: CommandLine, tmp_path: Path) -> None:
    """With domains, flags, session cookies and empty values, under a positional name."""
    file = tmp_path / "cookies.txt"
    file.write_text(TXT)
    answer = cli("import", str(file), "shop", "--json")
    assert (answer.code, answer.json["format"], answer.json["cookies"]) == (0, "netscape", 3)
    assert imported(cli, "shop") == [
        ("sid", "one", ".shop.example", 4_000_000_000),
        ("tab", "two", "shop.example", None),
        ("empty", "", "shop.example", None),
    ]
    assert cli("show", "shop", "--json").json["cookies"][1]["httpOnly"]


@pytest.mark.parametrize("wrapped", [EDITOR, {"url": "https://shop.example", "cookies": EDITOR}])
def test_what_cookie_editor_exports_is_imported(cli: CommandLine, tmp_path: Path, wrapped: Any) -> None:
    """`hostOnly` decides about subdomains."""
    file = tmp_path / "cookies.json"
    file.write_text(json.dumps(wrapped))
    assert cli("import", str(file), "shop").code == 0
    assert imported(cli, "shop") == [
        ("sid", "one", ".shop.example", 4_000_000_000.5),
        ("tab", "two", "www.shop.example", None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_with_a_byte_order_mark_is_imported(cli: CommandLine, tmp_path: Path, encoding: str) -> None:
    """Editors and shells of Windows write it."""
    file = tmp_path / "cookies.json"
    file.write_text(json.dumps(EDITOR, indent=1), encoding=encoding, newline="\r\n")
    assert cli("import", str(file), "shop").code == 0
    assert len(imported(cli, "shop")) == 2


@pytest.mark.parametrize(
    ("partition", "kept"),
    [
        ({"partitionKey": {"topLevelSite": "https://top.example", "hasCrossSiteAncestor": False}}, ("https://top.example", False)),
        ({"partitionKey": "https://top.example", "_crHasCrossSiteAncestor": False}, ("https://top.example", False)),
        ({"partitionKeyOpaque": True}, None),
    ],
)  # fmt: skip
def test_a_partitioned_cookie_of_an_array_stays_partitioned(
    cli: CommandLine, tmp_path: Path, partition: Any, kept: tuple[str, bool] | None
) -> None:
    """Without its partition it would be sent to other sites. One of an opaque partition is in no file of Playwright."""
    file, back = tmp_path / "cookies.json", tmp_path / "back.json"
    file.write_text(json.dumps([EDITOR[0] | partition]))
    assert cli("import", str(file), "shop").code == 0
    assert cli("export", "shop", "-o", str(back), "--format", "playwright").code == 0
    found = json.loads(back.read_text())["cookies"]
    assert [(each["partitionKey"], each["_crHasCrossSiteAncestor"]) for each in found] == ([kept] if kept else [])


@pytest.mark.parametrize("expires", ["2027-01-01T00:00:00Z", "4000000000", ["soon"]])
def test_an_expiry_that_is_no_number_is_refused(cli: CommandLine, tmp_path: Path, expires: object) -> None:
    """It became a session cookie without a word."""
    file = tmp_path / "cookies.json"
    file.write_text(json.dumps([EDITOR[0] | {"expirationDate": expires}]))
    answer = cli("import", str(file), "shop")
    assert (answer.code, "not a number of unix seconds" in answer.err) == (4, True)


@pytest.mark.parametrize("text", [json.dumps([EDITOR[0] | {"domain": ""}]), TXT + "\tFALSE\t/\tFALSE\t0\ttab\tvalue\n"])
def test_a_cookie_without_a_domain_is_refused(cli: CommandLine, tmp_path: Path, text: str) -> None:
    """No browser takes it."""
    file = tmp_path / "cookies"
    file.write_text(text)
    answer = cli("import", str(file), "shop")
    assert (answer.code, "no domain" in answer.err) == (4, True)


@pytest.mark.parametrize("file_format", ["playwright", "browser-use", "netscape"])
def test_odd_cookies_and_items_are_exported(cli: CommandLine, tmp_path: Path, file_format: str) -> None:
    """Lone surrogates, which localStorage may hold, a path of null, and an expiry that is no number."""
    odd = [
        {"name": "lone", "value": "\ud800", "domain": "shop.example"},
        {"name": "odd", "value": "one", "domain": "shop.example", "path": None, "expires": "soon"},
    ]
    items = [{"name": "key", "value": "\udfff"}]
    file, back = tmp_path / "state.json", tmp_path / "back"
    file.write_text(
        json.dumps({"cookies": odd, "origins": [{"origin": "https://shop.example", "localStorage": items}]})
    )
    assert cli("import", str(file), "shop").code == 0
    assert cli("show", "shop").code == 0
    answer = cli("export", "shop", "-o", str(back), "--format", file_format)
    assert answer.code == 0
    if file_format == "netscape":
        assert [each["name"] for each in cookies_from_txt(back.read_bytes())] == ["odd"]
        assert "other cookies (1)" in answer.err
    else:
        found = json.loads(back.read_bytes())
        assert ([each["value"] for each in found["cookies"]], found["origins"][0]["localStorage"]) == (
            ["\ud800", "one"], items,
        )  # fmt: skip
    assert cli("import", str(back), "copy").code == 0


def test_notes_with_a_lone_surrogate_are_shown(cli: CommandLine) -> None:
    """As they can be stored."""
    manager = blocking.SessionManager(cli.url, registry=None)
    with manager, blocking.reusable_session("shop", manager=manager) as session:
        session.data["notes"] = ["\ud800"]
    assert cli("show", "shop", "--reveal").code == 0
    assert cli("show", "shop", "--reveal", "--json").json["data"][0]["value"] == '["\ud800"]'


def test_cookies_are_read_from_a_pipe(cli: CommandLine) -> None:
    """`import - NAME` reads standard input."""
    command = [sys.executable, "-m", "session_reuse", "import", "-", "shop", "--url", cli.url]
    subprocess.run(command, input=TXT.encode(), check=True, capture_output=True)
    assert len(imported(cli, "shop")) == 3


def test_a_cookies_txt_is_exported_for_other_tools(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """Python's own reader of the form finds the cookies. What has no place in it is named."""
    file = tmp_path / "cookies.txt"
    answer = cli("export", alice, "-o", str(file), "--format", "netscape")
    assert answer.code == 0
    assert "localStorage items (1), sessionStorage items (1)" in answer.err
    jar = http.cookiejar.MozillaCookieJar(str(file))
    jar.load()
    assert [(each.name, each.value, each.domain, each.secure) for each in jar] == [
        ("sid", CANARIES[0], "shop.example", True)
    ]
    assert cli("import", str(file), "copy").code == 0


def test_a_broken_line_is_named_by_its_number(cli: CommandLine, tmp_path: Path) -> None:
    """Nothing is stored, and no value is shown."""
    file = tmp_path / "cookies.txt"
    file.write_text(TXT + "shop.example\tTRUE\tsecret\n")
    answer = cli("import", str(file), "shop")
    assert (answer.code, "line 7" in answer.err, "secret" in answer.err) == (4, True, False)
    assert cli("import", str(file)).code in {2, 4}
    assert cli("ls", "--json").out == ""


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_line_that_is_not_utf_8_is_named_by_its_number(cli: CommandLine, tmp_path: Path, start: bytes) -> None:
    """A value whose characters were replaced would be stored as a login."""
    file = tmp_path / "cookies.txt"
    file.write_bytes(start + TXT.encode() + b"shop.example\tTRUE\t/\tTRUE\t0\tname\tm\xfcller\r\n")
    answer = cli("import", str(file), "shop")
    assert (answer.code, "line 7 is not UTF-8" in answer.err, cli("ls", "--json").out) == (4, True, "")


@pytest.mark.parametrize("text", [
    "", "# Netscape HTTP Cookie File\n# no cookie\n", "hello", '{"cookies": [', "[]", '{"cookies": []}', '{"origins": []}',
])  # fmt: skip
def test_a_file_without_a_cookie_is_refused(cli: CommandLine, tmp_path: Path, text: str) -> None:
    """Also one that was cut off, or is of another kind. What it stored would pass for a login."""
    file = tmp_path / "cookies"
    file.write_text(text)
    answer = cli("import", str(file), "shop")
    assert answer.code == 4
    assert any(reason in answer.err for reason in ("holds no cookie", "neither", "cut off"))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\r\n"), max_size=8)
cookies = st.fixed_dictionaries({
    "name": texts, "value": texts,
    "domain": st.sampled_from(["shop.example", ".shop.example"]), "path": st.just("/"),
    "expires": st.sampled_from([-1, 4_000_000_000]), "httpOnly": st.booleans(), "secure": st.booleans(),
})  # fmt: skip


@given(st.lists(cookies, min_size=1))
def test_what_is_written_is_read_back(written: list[Any]) -> None:
    """Whatever the names and values."""
    assert cookies_from_txt(cookies_txt(written)) == written
