"""`session-reuse doctor`: check the store and this machine, and report."""

from __future__ import annotations

import textwrap
from typing import Annotated, Final

import typer

from session_reuse._manager import runtime_of
from session_reuse._store.keys import Keys
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.doctor.facts import facts_of
from session_reuse.cli.doctor.finding import (
    Finding,
    OverallStatus,
    Status,
    fail,
    has_failed,
    overall_status,
    reason_in,
    worst_of_each,
)
from session_reuse.cli.doctor.local_checks import local_findings, settings, variables
from session_reuse.cli.doctor.reach import reached
from session_reuse.cli.doctor.server_checks import IDENTITY, server_findings
from session_reuse.cli.doctor.use_checks import TRIAL, agent_finding, stored_finding
from session_reuse.cli.doctor.wire import UnfitError, Wire
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import GAP, printable
from session_reuse.cli.output import Output, styled
from session_reuse.config import Config, ConfigOptions, redacted_url
from session_reuse.errors import ConfigurationError, StoreError

Strict = Annotated[bool, typer.Option("--strict", help="End with 1 for warnings too.")]

_MARKS: Final = {Status.OK: ("✓", "green"), Status.WARN: ("!", "yellow"), Status.FAIL: ("✗", "bold red")}
_OVERALL: Final = {
    OverallStatus.HEALTHY: ("healthy", "bold green"),
    OverallStatus.ATTENTION: ("works, with warnings", "bold yellow"),
    OverallStatus.MISCONFIGURED: ("something does not work: see the ✗ above", "bold red"),
    OverallStatus.DEAD: ("no server answers", "bold red"),
}


async def doctor(output: Output, place: Place, strict: Strict = False) -> ExitCode:
    """Check the store, its sessions and this machine, with a remedy for each problem.

    The exit code is 1 if something does not work, also for wrong credentials, and 3 if no server answers.
    """
    config, findings = settings(place)
    is_reachable = True
    if config is not None:
        try:
            found = await _examined(place, config)
        except UnfitError as error:
            found, is_reachable = [error.finding], not error.is_dead
        findings = [*found, *findings, *local_findings(config, findings)]
    findings.append(variables())
    result = overall_status(findings, is_reachable=is_reachable)
    _report(output, redacted_url(config.url) if config else "", findings, result)
    if result is OverallStatus.DEAD:
        return ExitCode.STORE
    is_wrong = result is OverallStatus.MISCONFIGURED or (strict and result is OverallStatus.ATTENTION)
    return ExitCode.WRONG if is_wrong else ExitCode.OK


async def _examined(place: Place, config: Config) -> list[Finding]:
    """Return the findings about the store.

    Raises:
        UnfitError: no server can be used.
    """
    async with reached(config) as (wires, findings):
        keys = Keys(config.key_prefix)
        facts = [await facts_of(wire, keys, audit=config.audit) for wire in wires]
        found = worst_of_each(finding for each in facts for finding in server_findings(each, config))
        identity = [finding for finding in found if finding.check in IDENTITY]
        if has_failed(identity):
            return [*findings, *identity]
        # An agent on a server that lacks rights would fail again, with a less precise reason.
        return [*findings, *found, *([] if has_failed(found) else await _used(place, config, wires))]


async def _used(place: Place, config: Config, wires: list[Wire]) -> list[Finding]:
    """Return the findings of a trial session and of the stored sessions."""
    found: list[Finding] = []
    settings: ConfigOptions = {"encryption_keys": config.encryption_keys, **TRIAL}
    try:
        async with connected(place, **settings) as manager:
            found.append(await agent_finding(manager, wires))
            found.append(await stored_finding(await runtime_of(manager), config))
    except ConfigurationError:
        return found  # of the keys or the compression, which `local_findings` reports
    except StoreError as error:
        check = "sessions" if found else "agent"
        found.append(
            fail(check, f"could not be checked: {reason_in(error)}", "try again: the server answered just before")
        )
    return found


def _report(output: Output, where: str, findings: list[Finding], result: OverallStatus) -> None:
    checks = [
        {"check": each.check, "status": each.status.value, "found": each.found, "remedy": each.remedy or None}
        for each in findings
    ]
    output.emit({"verdict": result.value, "url": where, "checks": checks})
    width = max(len(finding.check) for finding in findings)
    indent = " " * (1 + 2 * len(GAP) + width)
    for finding in findings:
        mark, style = _MARKS[finding.status]
        head = f"{styled(mark, style)}{GAP}{styled(finding.check.ljust(width), 'bold')}{GAP}"
        output.show(head + _wrapped(finding.found, indent, output.width))
        if finding.remedy:
            remedy = _wrapped(f"→ {finding.remedy}", indent, output.width)
            output.show(indent + styled(remedy, "dim" if finding.status is Status.OK else style))
    words, style = _OVERALL[result]
    output.show(f"\n{words}", style=style)


def _wrapped(text: str, indent: str, width: int) -> str:
    """Return a text in lines of at most this width. All but the first are indented."""
    room = max(20, width - len(indent))
    lines = textwrap.wrap(printable(text), room, break_long_words=False, break_on_hyphens=False)
    return f"\n{indent}".join(lines)
