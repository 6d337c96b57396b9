"""The README: what it shows works, what it points to is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("program", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_a_program_in_the_readme_is_not_python_of_ours(program: str) -> None:
    """Each program parses, and every name it imports from us can be had."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("session_reuse"):
            module = __import__(node.module or "", fromlist=["x"])
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_a_link_in_the_readme_leads_nowhere() -> None:
    """Every file it names exists."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_a_command_in_the_readme_does_not_exist() -> None:
    """The two commands are there and can be run; the command line has what is listed."""
    for command in re.findall(r"^(scripts/\w+)", README, re.MULTILINE):
        assert (ROOT / command).stat().st_mode & 0o111
    from session_reuse.cli.app import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    listed = re.search(r"\| Command line \| (.*?) \|", README)
    assert listed is not None
    assert {name.split()[-1] for name in re.findall(r"`([^`]+)`", listed[1])} <= {name.rstrip("_") for name in known}
