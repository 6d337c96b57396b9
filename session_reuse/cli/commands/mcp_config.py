"""`session-reuse mcp-config`: the configuration of an MCP client that starts a browser server in a session."""

from __future__ import annotations

import json
import os
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from session_reuse._session.options import ResolvedOptions
from session_reuse._store.keys import checked
from session_reuse.cli.commands.run import Allow, Exclusive, Name, Pool, Save
from session_reuse.cli.options import AgentId, KeyPrefix, Url
from session_reuse.config import ENVIRONMENT_PREFIX, Config, redacted_url, unknown_variables
from session_reuse.errors import ConfigurationError, InvalidFingerprintError


class Server(StrEnum):
    """The servers that are tested."""

    PLAYWRIGHT = "playwright"
    CHROME_DEVTOOLS = "chrome-devtools"
    AGENT_BROWSER = "agent-browser"


COMMANDS: Final = {
    Server.PLAYWRIGHT: ("npx", "-y", "@playwright/mcp@0.0.83", "--cdp-endpoint", "{cdp}"),
    Server.CHROME_DEVTOOLS: ("npx", "-y", "chrome-devtools-mcp@1.11.0", "--browserUrl", "{cdp}"),
    Server.AGENT_BROWSER: ("npx", "-y", "agent-browser@0.41.2", "--cdp", "{cdp}", "mcp"),
}
"""What each is started with, in the version that the tests use."""

For = Annotated[Server, typer.Option("--for", metavar="|".join(Server), help="The server.")]
WithSecrets = Annotated[bool, typer.Option("--reveal", help="Print passwords and keys too.")]


def mcp_config(
    fingerprint: Name = None,
    server: For = Server.PLAYWRIGHT,
    agent_id: AgentId = None,
    pool: Pool = None,
    exclusive: Exclusive = False,
    save: Save = "merge",
    allow: Allow = None,
    reveal: WithSecrets = False,
    url: Url = None,
    key_prefix: KeyPrefix = None,
) -> None:
    """Print the `mcpServers` block of an MCP client, for a browser server that starts with the session.

    Variables that begin with SESSION_REUSE_ are copied into the block, because clients often start servers without those of
    your shell. Passwords and keys are left out without --reveal. The options from --agent-id to --allow are handed to `run`.
    """
    if (fingerprint is None) is (pool is None):
        raise typer.BadParameter("give a FINGERPRINT, or a --pool")
    options = (("URL", url), ("KEY_PREFIX", key_prefix))
    try:
        checked(*((fingerprint, "fingerprint") if pool is None else (pool, "pool")))
        given = {f"{ENVIRONMENT_PREFIX}{name}": value for name, value in options if value is not None}
        options_of_use: Any = {"exclusive": exclusive, "save": save, "allowed_domains": allow, "pool": pool}
        ResolvedOptions.build(Config.from_env(given), options_of_use)
    except (ConfigurationError, InvalidFingerprintError) as error:
        raise typer.BadParameter(str(error)) from None
    settings, hidden = _settings(given, reveal=reveal)
    valued = (("--agent-id", agent_id), ("--pool", pool), ("--save", save if save != "merge" else None))
    flags = [word for pair in valued if pair[1] for word in pair]
    flags += [*(["--exclusive"] if exclusive else []), *(word for host in allow or () for word in ("--allow", host))]
    command, *before = _ourselves()
    # A name with a dash in front would be read as an option before the "--".
    names = [] if fingerprint is None else [fingerprint]
    words = [*flags, "--", *names] if (fingerprint or "-").startswith("-") else [*names, *flags, "--"]
    block: dict[str, Any] = {"command": command, "args": [*before, "run", *words, *COMMANDS[server]]}
    if settings:
        block["env"] = settings
    typer.echo(json.dumps({"mcpServers": {server.value: block}}, indent=2))
    for name in hidden:
        typer.echo(f"{name} holds a secret and was left out: set it where the client runs, or use --reveal", err=True)


def _ourselves() -> list[str]:
    """Return this program by its whole path: clients often have another PATH."""
    beside = Path(sys.executable).with_name("session-reuse")
    found = str(beside) if beside.exists() else shutil.which("session-reuse")
    return [found] if found else [sys.executable, "-m", "session_reuse.cli"]


def _settings(given: dict[str, str], *, reveal: bool) -> tuple[dict[str, str], list[str]]:
    """Return the variables of the block, and the names of those that are left out."""
    # What `run` sets for its own command, and what has no effect, belongs to somebody else.
    foreign = {*unknown_variables(), f"{ENVIRONMENT_PREFIX}CDP_URL", f"{ENVIRONMENT_PREFIX}CDP_WS"}
    ours = {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX) and value}
    found = {name: value for name, value in ours.items() if name not in foreign}
    found |= given
    hidden = [] if reveal else sorted(name for name, value in found.items() if _is_secret(name, value))
    return {name: value for name, value in sorted(found.items()) if name not in hidden}, hidden


def _is_secret(name: str, value: str) -> bool:
    return name.endswith("_KEYS") or ("://" in value and redacted_url(value) != value)
