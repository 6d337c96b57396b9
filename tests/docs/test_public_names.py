"""Pages and examples use public names only, and the names that they import exist."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest

import session_reuse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
FOR_MAINTAINERS = {ROOT / "docs" / "explanation" / "architecture.md"}
"""This page describes the private rooms."""
PRIVATE = re.compile(r"\bsession_reuse(?:[./]\w+)*[./]_\w+")


def relative(path: Path) -> str:
    """Return the name that a failing test shows."""
    return str(path.relative_to(ROOT))


def programs(path: Path) -> list[str]:
    """Return the Python programs of a page or an example."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return [text]
    return [
        textwrap.dedent(found) for found in re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]


def imports(program: str) -> list[tuple[str, str]]:
    """Return module and name of each import of this package."""
    found = []
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "session_reuse":
            found += [(node.module or "", alias.name) for alias in node.names]
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "session_reuse"]
    return found


def private_access(program: str) -> list[str]:
    """Return the private attributes of other objects that a program uses."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Attribute)
        and re.match(r"_[a-z]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    ]


@pytest.mark.parametrize("path", [*PAGES, *EXAMPLES], ids=relative)
def test_a_program_imports_public_names_that_exist(path: Path) -> None:
    """A private name may change in any version, and a wrong one fails at the first line."""
    for program in programs(path):
        assert private_access(program) == []
        for module, name in imports(program):
            assert not any(part.startswith("_") for part in f"{module}.{name}".split(".")), f"{module}.{name}"
            imported = importlib.import_module(module)
            public = getattr(imported, "__all__", dir(imported))
            assert not name or name in public or importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("path", [page for page in PAGES if page not in FOR_MAINTAINERS], ids=relative)
def test_a_page_names_no_private_module(path: Path) -> None:
    """Text, tables and directives name what users can import."""
    assert PRIVATE.findall(path.read_text(encoding="utf-8")) == []


def test_the_api_page_lists_every_public_name() -> None:
    """The page lists each name of `__all__`."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    errors = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[A-Za-z_]+\b", page + errors))
    assert set(session_reuse.__all__) <= named


def test_the_signatures_are_those_of_the_api_page() -> None:
    """The page from docstrings lacks no function of an adapter."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(session_reuse\.browsers\.\w+)` \| (.*) \|$", page, re.MULTILINE)
    listed = {f"{module}.{name}" for module, names in rows for name in re.findall(r"`(\w+)`", names)} - {
        "session_reuse.browsers.probes.keep_alive"  # a method of the manager, which takes the probes
    }
    signatures = (ROOT / "docs" / "reference" / "signatures.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. auto(?:function|class):: (\S+)", signatures, re.MULTILINE))
    for module, names in re.findall(r"^\.\. automodule:: (\S+)\n +:members: (.*)$", signatures, re.MULTILINE):
        shown |= {f"{module}.{name}" for name in names.split(", ")}
    assert len(listed) > 20
    assert listed - shown == set()
