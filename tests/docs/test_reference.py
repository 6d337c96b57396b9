"""The reference: tables written from the code, rights that suffice, and a build without a warning."""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import session_reuse
from session_reuse import Config, Outcome, SaveOutcome, SessionManager, blocking, errors, reusable_session
from session_reuse._telemetry.logs import Event
from tests.examples.test_monitoring import known_metrics
from tests.harness.polling import until
from tests.harness.servers import RedisCluster, RedisServer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that writes the tables."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("tables")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_the_tables_of_a_page_are_those_of_the_code(tables: ModuleType, page: Path) -> None:
    """Tables are in the page, so a code host shows them too. `python docs/tables.py` writes them."""
    text = page.read_text(encoding="utf-8")
    assert text == tables.filled(text), "run python docs/tables.py"


def test_every_setting_and_outcome_has_its_words(tables: ModuleType) -> None:
    """A setting or outcome without a docstring would be a row without a meaning."""
    rows = list(tables.config_rows())
    assert [row[0].strip("`") for row in rows] == list(Config.__dataclass_fields__)
    assert all(row[2] for row in rows)
    for enum in (Outcome, SaveOutcome):
        found = list(tables.enum_rows(f"session_reuse.{enum.__name__}"))
        assert [row[0].strip("`") for row in found] == [member.value for member in enum]


def test_every_metric_is_in_the_reference(tables: ModuleType) -> None:
    """The table has the metrics of a scrape, and pages name no others."""
    known = known_metrics()
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    assert {row[0].strip("`") for row in tables.metric_rows()} == families
    named = re.compile(r"\bsession_[a-z_]+?(?:_total|_seconds(?:_bucket|_sum|_count)?|_saves|breaker_state)\b")
    for page in PAGES:
        assert set(named.findall(page.read_text())) <= known | families, page


def test_every_log_event_is_explained_and_logged_somewhere(tables: ModuleType) -> None:
    """Each event has a meaning and a call, and troubleshooting names no others."""
    content = tables.REGION.search((DOCS / "reference" / "log-events.md").read_text(encoding="utf-8"))[3]
    rows = list(tables.event_rows(tables.event_meanings(content)))
    assert all(row[3] for row in rows)
    assert [row[0].strip("`") for row in rows] == [event.value for event in Event]
    named = re.compile(r"\bsession_reuse\.([a-z_]+)`")
    events = {event.value.removeprefix("session_reuse.") for event in Event}
    modules = {path.stem for path in Path(session_reuse.__file__).parent.iterdir()}
    assert set(named.findall((DOCS / "troubleshooting.md").read_text())) <= events | modules


def test_the_page_says_which_files_of_the_spool_stay(tables: ModuleType) -> None:
    """A damaged one is set aside. `tests/chaos/test_spool.py` holds that one of another key is left alone."""
    content = tables.REGION.search((DOCS / "reference" / "log-events.md").read_text(encoding="utf-8"))[3]
    (meaning,) = [row[3] for row in tables.event_rows(tables.event_meanings(content)) if "spool_rejected" in row[0]]
    assert "A damaged one was moved to the folder `rejected`" in meaning
    assert "One that is sealed with another key stays" in meaning


def test_warnings_lead_to_troubleshooting(tables: ModuleType) -> None:
    """A warning in the log has a section with the remedy."""
    text = (DOCS / "troubleshooting.md").read_text()
    for name, (levels, _) in tables.log_calls().items():
        if levels & {"warning", "error"} and name not in {"EXPIRED", "CALLBACK_FAILED"}:
            assert Event[name].value in text, name


def test_every_error_is_in_the_reference() -> None:
    """The tree in the docstring, the exported names and the table of remedies agree."""
    tree = errors.__doc__ or ""
    remedies = (DOCS / "reference" / "errors.md").read_text().split("## What to do")[1]
    explained_by_outcome = {"SessionReuseError", "StoreError", "StoreUnavailableError", "StoreTimeoutError"}
    explained_by_outcome |= {"StoreAuthError", "CircuitOpenError"}
    for name in errors.__all__:
        assert name in tree
        assert name in remedies or name in explained_by_outcome


def test_every_source_of_an_unreadable_value_is_in_the_tree_of_errors() -> None:
    """Code that handles `CorruptStateError` at the wrong call handles nothing."""
    (line,) = re.findall(r".*─ CorruptStateError .*", errors.__doc__ or "")
    assert {"strict=True", "import_", "one_time_code"} <= set(re.findall(r"[\w=]+", line))


def raised_texts(name: str) -> set[str]:
    """Return the messages with which the modules that read a stored value raise an error. Of a template, its beginning."""
    root = Path(session_reuse.__file__).parent
    found = set()
    for path in (*(root / "_state").glob("*.py"), root / "_stored_form.py"):
        module = importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == name:
                (text,) = node.exc.args
                start = text.values[0] if isinstance(text, ast.JoinedStr) else text
                found.add(start.value if isinstance(start, ast.Constant) else getattr(module, ast.unparse(start)))
    return found


def test_every_reason_of_a_corrupt_value_is_in_troubleshooting() -> None:
    """People search the page for the text that their log shows. The rows of whole values come first."""
    section = (DOCS / "troubleshooting.md").read_text().split("## Outcome `corrupt`")[1].split("\n## ")[0]
    rows = [row.removesuffix("…") for row in re.findall(r"^\| (.+?) \|", section, re.MULTILINE)][1:]
    whole, damaged = raised_texts("UnreadableStateError"), raised_texts("CorruptStateError")
    assert set(rows[: len(whole)]) == whole
    assert len(whole) == 8
    assert "In the first eight rows the value is whole" in section
    assert {row.removeprefix("any other text, such as: ") for row in rows[len(whole) :]} <= damaged


def logged_reasons() -> tuple[set[str], set[str]]:
    """Return the texts with which a save is reported as lost, and those with which a change is refused."""
    root = Path(session_reuse.__file__).parent
    lost: set[str] = set()
    refused: set[str] = set()
    for path in (*(root / "_session").glob("*.py"), root / "_orphans.py", root / "blocking.py"):
        module = importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            texts = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "why")]
            of = refused if name == "Refused" else lost if name == "lost" or "SAVE_LOST" in ast.unparse(node) else set()
            for each in (part for text in texts for part in ast.walk(text)):
                found = each.value if isinstance(each, ast.Constant) else vars(module).get(getattr(each, "id", ""))
                of |= {found} if isinstance(found, str) else set()
    return lost, refused


def test_every_reason_of_a_lost_save_is_in_troubleshooting() -> None:
    """People search the page for the text that their log shows."""
    section = (DOCS / "troubleshooting.md").read_text().split("## The save outcome is `lost`")[1].split("\n## ")[0]
    shown = {text for row in re.findall(r"^\| (.+?) \|", section, re.MULTILINE) for text in re.findall("`(.+?)`", row)}
    lost, refused = logged_reasons()
    assert len(lost) == 7
    assert lost <= shown
    assert shown <= lost | refused


@pytest.mark.parametrize("module", [session_reuse, blocking], ids=["async", "blocking"])
@pytest.mark.parametrize("name", ["BrowserSession", "SessionManager"])
def test_help_shows_the_members_of_the_reference_alone(module: ModuleType, name: str) -> None:
    """What users must not call begins with an underscore."""
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:\w+\.)?(\w+)", page))
    assert {each for each in dir(getattr(module, name)) if not each.startswith("_")} - named == set()


def test_the_exit_codes_are_in_the_reference() -> None:
    """A script that uses exit codes can rely on the page."""
    pytest.importorskip("typer")
    from session_reuse.cli.exit_codes import ExitCode

    page = (DOCS / "reference" / "cli.md").read_text().split("## Exit codes")[1]
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [str(code.value) for code in ExitCode]


def rights(page: str) -> list[str]:
    """Return the ACL command that a page shows."""
    text = (DOCS / page).read_text()
    return re.findall(r"^ACL SETUSER .*$", text, re.MULTILINE)[0].split()


async def use_everything(url: str) -> None:
    """Do all that agents and operators do."""
    patient = {"attempt_timeout": 5, "connect_timeout": 5, "restore_timeout": 10, "save_timeout": 10}
    async with SessionManager(url, registry=None, strict=True, **patient) as manager:
        async with reusable_session("a", "agent-1", manager=manager, exclusive=True, max_uses=9) as session:
            session.data["n"] = 1
        for name in ("a", "b"):
            async with reusable_session(name, "agent-1", manager=manager) as session:
                session.mark_good()
        async with reusable_session("a", manager=manager) as session:
            session.mark_bad("x")
        assert await manager.affinity("agent-1") == "b"
        assert len([each async for each in manager.sessions()]) == 2
        assert await manager.evict("a")
        async with reusable_session("a", manager=manager, exclusive=True) as session:
            session.discard()


@pytest.mark.redis
async def test_the_minimal_rights_suffice(own_redis: RedisServer) -> None:
    """A user with the rights of the page can do everything that agents do."""
    with own_redis.client() as client:
        client.execute_command(*rights("reference/stored-form.md"))
    await use_everything(f"redis://agents:password@127.0.0.1:{own_redis.port}/0")


@pytest.mark.cluster
async def test_the_rights_suffice_on_a_cluster() -> None:
    """With the additions for a Cluster, the same user works there."""
    page = (DOCS / "reference" / "stored-form.md").read_text()
    (more,) = re.findall(r"^\| a Cluster \| `(.*)` \|$", page, re.MULTILINE)
    with RedisCluster() as cluster:
        for node in cluster.nodes:
            with node.client() as client:
                client.execute_command(*rights("reference/stored-form.md"), *more.replace("\\|", "|").split())
        await use_everything(cluster.url.replace("://", "://agents:password@", 1))


@pytest.mark.redis
async def test_the_rights_of_the_clean_up_suffice(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The clean-up job runs as the user of its page, with events and without a failure."""
    with own_redis.client() as client:
        client.config_set("notify-keyspace-events", "Exge")
        client.execute_command(*rights("how-to/clean-up.md"))
    expired: list[str] = []
    url = f"redis://cleaner:password@127.0.0.1:{own_redis.port}/0"
    caplog.set_level(logging.INFO, logger="session_reuse")
    async with SessionManager(url, registry=None, ttl=1.0, cleanup_interval=0.1, on_expired=expired.append) as manager:
        job = asyncio.create_task(manager.cleanup())
        async with reusable_session("a", "agent-1", manager=manager) as session:
            session.data["n"] = 1
        await until(lambda: expired == ["a"])
        await manager.cleanup_once()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    assert "cleanup_failed" not in caplog.text
    assert "notifications_off" not in caplog.text


def test_the_job_gets_no_right_that_it_does_not_use() -> None:
    """A user with fewer rights can do less harm."""
    added = set(rights("how-to/clean-up.md")) - set(rights("reference/stored-form.md"))
    commands = {each[1:].partition("|")[0] for each in added if each.startswith("+")}
    root = Path(session_reuse.__file__).parent
    sources = [path for folder in ("_cleanup", "_store") for path in (root / folder).rglob("*") if path.is_file()]
    used = {word for path in sources if path.suffix in {".py", ".lua"} for word in words_of(path)}
    assert len(commands) > 3
    assert commands - used == {"unsubscribe"}  # of `doctor`, which tries SUBSCRIBE


def words_of(path: Path) -> list[str]:
    """Return the words of a program in small letters."""
    return re.findall(r"[a-z]+", path.read_text(encoding="utf-8").lower())


SHOWN_BY_SPHINX_ONLY = {
    "eval-rst": [DOCS / "reference" / "signatures.md"],  # the page begins with that, and api.md lists the names
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_a_page_can_be_read_where_it_lies(page: Path) -> None:
    """A code host shows no directive: tables are in the page, diagrams are images, and lists of pages are links."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"^```\{([\w-]+)\}", text, re.MULTILINE):
        assert page in SHOWN_BY_SPHINX_ONLY.get(name, ()), name
    for image in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (page.parent / image).is_file()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """A broken link, a missing docstring and a wrong name fail the build."""
    for module in ("furo", "myst_parser", "playwright", "browser_use", "selenium", "typer"):
        pytest.importorskip(module)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(tmp_path)]
    environment = {**os.environ, "ANONYMIZED_TELEMETRY": "false", "BROWSER_USE_CONFIG_DIR": str(tmp_path / "config")}
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=390, check=False
    )
    assert finished.returncode == 0, finished.stderr
