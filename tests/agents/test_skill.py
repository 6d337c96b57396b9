"""SKILL.md is shipped, and what it tells an agent exists."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from typing import Any

import pytest

from session_reuse.outcome import Outcome, SaveOutcome

SKILL = files("session_reuse") / "skills" / "session-reuse" / "SKILL.md"


def test_it_has_the_head_that_agents_read() -> None:
    """Name and description stand between two lines of dashes. A page is at most 60 lines."""
    text = SKILL.read_text(encoding="utf-8")
    head = re.match(r"---\nname: ([a-z-]+)\ndescription: (.{20,500})\n---\n", text)
    assert head is not None
    assert head[1] == "session-reuse"
    assert len(text.splitlines()) <= 60


def test_its_commands_and_words_exist() -> None:
    """Commands, options, outcomes and save outcomes are those of the code."""
    typer: Any = pytest.importorskip("typer")
    from session_reuse.cli.app import app

    root: Any = typer.main.get_command(app)
    text = SKILL.read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in re.findall(r"^    session-reuse (.+)$", text, re.MULTILINE)]
    assert {line[0] for line in lines} == {"run", "login", "status", "show", "doctor"}
    assert all(root.get_command(None, line[0]) is not None for line in lines)
    for line in lines:
        own = line[: line.index("--")] if "--" in line else line
        assert {word for word in own if word.startswith("--")} <= _options(root, line[0])
    assert set(re.findall(r"`(--[a-z-]+)", text)) - {"--isolated"} <= _options(root, "run")
    said = set(re.findall(r"`([a-z_]+)`", text))
    assert said >= {outcome.value for outcome in SaveOutcome} - {"pending"}  # the report waits for what becomes of it
    assert said >= {outcome.value for outcome in Outcome if outcome.degraded}


def _options(root: Any, command: str) -> set[str]:
    return {option for parameter in root.get_command(None, command).params for option in parameter.opts}
