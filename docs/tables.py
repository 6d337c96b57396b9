# ruff: noqa: SLF001  (only private attributes hold the name of a metric)
"""Write the reference tables into their pages, from the code: `python docs/tables.py`. A test compares them.

A table stands in its page between two comments, so a code host shows it too. Only the meanings of log events are prose
of the page: they are read from the table that is there.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import defaultdict
from dataclasses import fields
from enum import EnumType
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import session_reuse
from session_reuse import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = Path(session_reuse.__file__).parent
PAGES = Path(__file__).parent
REGION = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def class_docstrings(path: Path, name: str) -> dict[str, str]:
    """Return the docstring under each assignment in the body of a class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    found: dict[str, str] = {}
    for statement, following in pairwise(body):
        target = getattr(statement, "target", None) or (getattr(statement, "targets", None) or [None])[0]
        text = getattr(getattr(following, "value", None), "value", None)
        if isinstance(target, ast.Name) and isinstance(following, ast.Expr) and isinstance(text, str):
            found[target.id] = " ".join(text.split())
    return found


def config_rows() -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of each setting, in the order of the code."""
    from session_reuse.config import ENVIRONMENT_SETTINGS, Config

    texts = class_docstrings(PACKAGE / "config.py", "Config")
    for field in fields(Config):
        only = "" if field.name in ENVIRONMENT_SETTINGS else " In code only."
        yield f"`{field.name}`", f"`{field.default!r}`", texts[field.name] + only


def enum_rows(name: str) -> Iterator[tuple[str, str]]:
    """Yield value and meaning of each member of an enum that is named by its public path."""
    module, _, cls = name.rpartition(".")
    enum = getattr(importlib.import_module(module), cls)
    texts = class_docstrings(Path(str(sys.modules[enum.__module__].__file__)), cls)
    for member in enum:
        yield f"`{member.value}`", texts[member.name]


def metric_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, labels and meaning of each metric, from a new registry."""
    from prometheus_client import CollectorRegistry

    from session_reuse._telemetry.metrics import Metrics

    registry = CollectorRegistry()
    Metrics(registry)
    for collector in registry._collector_to_names:
        labels = ", ".join(f"`{label}`" for label in collector._labelnames) or "none"
        yield f"`{metric_name(collector)}`", collector._type, labels, collector._documentation


def metric_name(collector: Any) -> str:
    """Return the name under which Prometheus shows a metric."""
    return f"{collector._name}_total" if collector._type == "counter" else str(collector._name)


@cache
def log_calls() -> dict[str, tuple[set[str], set[str]]]:
    """Return levels and field names of each event, from all calls of `log` in the package."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for name, level, names in _calls_in(node):
                    found[name][0].add(level)
                    found[name][1].update(names)
    return found


def _calls_in(function: ast.AST) -> Iterator[tuple[str, str, list[str]]]:
    """Yield event, level and fields of each call of `log` in a function. The event may be a local variable."""
    chosen = {
        target.id: _events_in(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            if getattr(node.func.value, "id", "") == "log":
                for name in chosen.get(first.id, []) if isinstance(first, ast.Name) else _events_in(first):
                    yield name, node.func.attr, _fields_of(node, function)


def _fields_of(call: ast.Call, function: ast.AST) -> list[str]:
    """Return the names of the fields of a call, those of a dict that was made just before included."""
    names = [word.arg for word in call.keywords if word.arg]
    spread = {word.value.id for word in call.keywords if word.arg is None and isinstance(word.value, ast.Name)}
    for node in ast.walk(function):
        made = {each.id for each in getattr(node, "targets", ()) if isinstance(each, ast.Name)}
        if spread & made and isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names += [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    return names


def _events_in(expression: ast.AST) -> list[str]:
    parts = [part for part in ast.walk(expression) if isinstance(part, ast.Attribute)]
    return [part.attr for part in parts if getattr(part.value, "id", "") == "Event"]


def event_rows(texts: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, level, fields and meaning of each event. The meanings come from the page."""
    from session_reuse._telemetry.logs import Event

    calls = log_calls()
    values = {event.value for event in Event}
    if values != set(texts):
        raise ValueError(f"log events and the page differ: {sorted(values ^ set(texts))}")
    for event in Event:
        levels, names = calls.get(event.name, (set(), set()))
        shown = ", ".join(f"`{name}`" for name in sorted(names))
        yield f"`{event.value}`", ", ".join(sorted(levels)) or "not used", shown, texts[event.value]


def command_sections() -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield name, help and parameters (spelling, meaning) of each command."""
    import typer

    from session_reuse.cli.app import app

    root: Any = typer.main.get_command(app)
    for name in root.list_commands(None):
        command = root.get_command(None, name)
        parameters = [
            (_spelling(each), _meaning(each)) for each in command.params if not getattr(each, "hidden", False)
        ]
        yield name, _as_markdown(command.help or ""), parameters


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"{parameter.metavar}{'...' if parameter.nargs == -1 else ''}"
        return f"`{name}`" if parameter.required else f"`[{name}]`"
    kind = parameter.type_descriptor.annotation
    takes = (
        ""
        if parameter.is_flag
        else f" {'|'.join(each.value for each in kind) if isinstance(kind, EnumType) else parameter.metavar}"
    )
    return ", ".join(f"`{spelling}{takes}`" for spelling in parameter.opts)


def _meaning(parameter: Any) -> str:
    text = _as_markdown(getattr(parameter, "help", None) or "")
    shown = parameter.default not in (None, False, "") and not parameter.required and "default" not in text
    return f"{text} Default: `{getattr(parameter.default, 'value', parameter.default)}`." if shown else text


def _as_markdown(text: str) -> str:
    return re.sub(r"(--[a-z-]+|SESSION_REUSE_[A-Z_]+)", r"`\1`", " ".join(text.split()))


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def event_meanings(written: str) -> dict[str, str]:
    """Return what a page says about each log event."""
    rows = [re.split(r" \| ", line.strip("| ")) for line in written.splitlines()[2:]]
    return {row[0].strip("`"): row[-1].replace(r"\|", "|") for row in rows}


def commands_text() -> str:
    """Return a section for each command: its help, its arguments and options."""
    parts = []
    for name, text, parameters in command_sections():
        rows = [(spelling, meaning or "-") for spelling, meaning in parameters]
        parts.append(f"## session-reuse {name}\n\n{text}\n\n{table(('argument or option', 'meaning'), rows)}")
    return "\n".join(parts)


def error_tree() -> str:
    """Return the tree that the docstring of `session_reuse.errors` draws."""
    lines = (errors.__doc__ or "").splitlines()
    tree = [line.strip() for line in lines if line.startswith("    ")]
    return "```text\n" + "\n".join(tree) + "\n```\n"


def content(name: str, written: str) -> str:
    """Return the content of a table. `written` is its present content."""
    kind, _, subject = name.partition("=")
    if kind == "settings":
        return table(("name", "default", "meaning"), config_rows())
    if kind == "enum":
        return table(("value", "meaning"), enum_rows(subject))
    if kind == "metrics":
        return table(("name", "type", "labels", "meaning"), metric_rows())
    if kind == "log-events":
        return table(("event", "level", "fields", "meaning"), event_rows(event_meanings(written)))
    if kind == "commands":
        return commands_text()
    if kind == "errors":
        return error_tree()
    raise ValueError(f"no table is called {name}")


def filled(text: str) -> str:
    """Return a page with its tables as the code has them."""
    return REGION.sub(lambda found: f"{found[1]}{content(found[2], found[3])}{found[4]}", text)


def main() -> int:
    """Write all tables. Return 1 when a page has changed."""
    changed = 0
    for page in sorted(PAGES.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main())
