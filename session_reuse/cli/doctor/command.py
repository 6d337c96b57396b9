"""The command `doctor`: asks, judges, reports. Must never hold a check itself."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Final

import typer
from rich.text import Text

from session_reuse.cli.connection import Place, connected
from session_reuse.cli.doctor.facts import gather
from session_reuse.cli.doctor.finding import Finding, Status, Verdict, fail, ok, verdict, worst_of_each
from session_reuse.cli.doctor.local_checks import local_findings, settings
from session_reuse.cli.doctor.server_checks import server_findings
from session_reuse.cli.doctor.stored_checks import stored_finding
from session_reuse.cli.doctor.wire import wires
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output, table
from session_reuse.cli.running import run
from session_reuse.config import Config, redacted_url
from session_reuse.errors import ConfigurationError, StoreAuthError, StoreError
from session_reuse.resilience.failure import Failure
from session_reuse.store.connect import Connection, connect
from session_reuse.store.keys import Keys

Strict = Annotated[bool, typer.Option("--strict", help="Let warnings count: give 1 for them too.")]

_MARKS: Final = {Status.OK: ("✓", "green"), Status.WARN: ("!", "yellow"), Status.FAIL: ("✗", "bold red")}
_VERDICTS: Final = {
    Verdict.HEALTHY: ("healthy", "bold green"),
    Verdict.ATTENTION: ("works, with warnings", "bold yellow"),
    Verdict.MISCONFIGURED: ("something does not work: see the ✗ above", "bold red"),
    Verdict.DEAD: ("the server is not there", "bold red"),
}


def doctor(strict: Strict = False, url: Url = None, key_prefix: KeyPrefix = None, as_json: AsJson = False) -> None:
    """Check the store, its stored sessions and this machine, and say what to do. Gives 1 if something fails, 3 if dead."""
    run(partial(_doctor, Place(url, key_prefix), strict), as_json=as_json)


async def _doctor(place: Place, strict: bool, output: Output) -> ExitCode:
    config, findings = settings(place)
    is_reachable = True
    if config is not None:
        examined, is_reachable = await _examined(place, config)
        findings = [*examined, *findings, *local_findings(config, findings)]
    result = verdict(findings, is_reachable=is_reachable)
    _report(output, redacted_url(config.url) if config else "", findings, result)
    if result is Verdict.DEAD:
        return ExitCode.STORE
    is_wrong = result is Verdict.MISCONFIGURED or (strict and result is Verdict.ATTENTION)
    return ExitCode.WRONG if is_wrong else ExitCode.OK


async def _examined(place: Place, config: Config) -> tuple[list[Finding], bool]:
    """Return what is found at the server, and whether there is one."""
    try:
        connection = await asyncio.to_thread(_connection, config)
        found = await _server(connection, config)
        sessions = await _sessions(place, config)
    except ConfigurationError as error:
        return [fail("server", str(error), "correct the URL, or install what is missing")], True
    except (Failure, StoreError) as trouble:
        refusal = _store_error(trouble)
        return [_unreachable(refusal, config)], isinstance(refusal, StoreAuthError)
    return [ok("server", f"answers at {redacted_url(config.url)}"), *found, *sessions], True


def _connection(config: Config) -> Connection:
    connection = connect(config)
    if connection.revive is not None:
        connection.revive()
    return connection


async def _server(connection: Connection, config: Config) -> list[Finding]:
    try:
        async with wires(connection.client) as opened:
            keys = Keys(config.key_prefix, config.deadline_buckets)
            facts = [await gather(wire, keys) for wire in opened]
    finally:
        if connection.release is not None:
            await asyncio.to_thread(connection.release)
    return worst_of_each(finding for each in facts for finding in server_findings(each, config))


async def _sessions(place: Place, config: Config) -> list[Finding]:
    """Look at stored sessions; a user without the rights to list them has been told so by then."""
    try:
        async with connected(place, encryption_keys=config.encryption_keys) as manager:
            return [await stored_finding(await manager.services(), config)]
    except ConfigurationError:
        return []
    except (Failure, StoreError) as trouble:
        error = _store_error(trouble)
        if isinstance(error, StoreAuthError):
            return []
        return [fail("sessions", f"could not be looked at: {error}", "try again: the server did answer just before")]


def _store_error(trouble: Failure | StoreError) -> StoreError:
    return trouble.error if isinstance(trouble, Failure) else trouble


def _unreachable(error: StoreError, config: Config) -> Finding:
    where = redacted_url(config.url)
    if isinstance(error, StoreAuthError):
        return fail(
            "server", f"{where}: {error}", "correct user and password in SESSION_REUSE_URL: redis://user:password@host"
        )
    remedy = "start the server, or correct SESSION_REUSE_URL; agents start fresh meanwhile, and their saves wait"
    return fail("server", f"{where}: {error}", remedy)


def _report(output: Output, where: str, findings: list[Finding], result: Verdict) -> None:
    checks = [
        {"check": each.check, "status": each.status.value, "found": each.found, "remedy": each.remedy or None}
        for each in findings
    ]
    output.emit({"verdict": result.value, "url": where, "checks": checks})
    made = table("", "", "")
    made.show_header = False
    for finding in findings:
        mark, style = _MARKS[finding.status]
        told = Text(printable(finding.found))
        if finding.remedy:
            told.append(f"\n→ {printable(finding.remedy)}", style="dim" if finding.status is Status.OK else style)
        made.add_row(Text(mark, style=style), Text(finding.check, style="bold"), told)
    output.show(made)
    words, style = _VERDICTS[result]
    output.show(f"\n{words}", style=style)
