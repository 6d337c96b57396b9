"""Every example runs unchanged, and prints the lines that its text promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SUPPORT = {"login_site"}

EXPECTED = {
    "wrap_a_block": [r"reused=False outcome=missing", r"left: saved"],
    "decorate_an_agent": [r"alice via agent-1: welcome back, order number 2", r"looked 2 times, reused=True"],
    "playwright_login": [r"agent-1: 'Hello alice'.*reused=False", r"agent-2: 'Hello alice'.*reused=True", r"1 time"],
    "redis_goes_away": [
        r"enter reused, leave pending", r"degraded=True", r"2 saves were written", r"basket \['book', 'lamp'\]",
    ],
    "share_one_login": [r"merged, merged, saved", r"seen-ann, seen-ben, seen-cem", r"ann reused, ben busy"],
    "blocking_script": [r"user-0 was used by \['thread-0', 'thread-2'\]", r"stored: blocking\.example/user-1"],
    "serve_metrics": [r"session_reused_total 2\.0", r'session_miss_total\{reason="missing"\} 1\.0'],
    "metrics_of_workers": [r"session_reused_total 1\.0", r'session_miss_total\{reason="missing"\} 1\.0'],
    "verify_and_health": [
        r"second visit: +enter reused", r"no new login: +enter unverified +leave skipped",
        r"marked bad three times: +enter retired +leave saved", r"max_age: +enter retired",
    ],
    "browser_use_agent": [r"run 1: .*reused=False", r"run 2: .*reused=True", r"1 time"],
    "selenium_login": [r"agent-1: 'Hello alice'.*reused=False", r"agent-2: 'Hello alice'.*reused=True", r"1 time"],
    "cleanup_job": [r"expired: cleanup-job\.example/alice"],
}  # fmt: skip
NEEDS = {
    "playwright_login": ("playwright",), "selenium_login": ("selenium",), "browser_use_agent": ("browser_use",),
}  # fmt: skip


def run_example(name: str, folder: Path) -> str:
    """Run one example against its own data folder and return what it printed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SESSION_REUSE_")}
    chromium = {key: value for key, value in os.environ.items() if key == "SESSION_REUSE_CHROMIUM"}
    patient = {f"SESSION_REUSE_{name}_TIMEOUT": "5" for name in ("ATTEMPT", "CONNECT", "RESTORE", "SAVE")}
    environment = {
        **kept, **chromium, **patient, "SESSION_REUSE_URL": f"embedded://{folder}/redis", "PYTHONPATH": str(ROOT),
        "BROWSER_USE_CONFIG_DIR": str(folder), "PYTHONWARNINGS": "default",
    }  # fmt: skip
    finished = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=140, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished.stdout


def test_every_example_is_tried() -> None:
    """Every example is run by a test and listed in the README of the folder."""
    found = {path.stem for path in EXAMPLES.glob("*.py")} - SUPPORT
    assert found == set(EXPECTED)
    listed = (EXAMPLES / "README.md").read_text()
    assert {name for name in found if f"`{name}.py`" not in listed} == set()


@pytest.mark.redis
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.browser if name in NEEDS else ()) for name in sorted(EXPECTED)]
)
def test_an_example_does_what_it_says(name: str, tmp_path: Path) -> None:
    """An example prints the promised lines."""
    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    printed = run_example(name, tmp_path)
    for pattern in EXPECTED[name]:
        assert re.search(pattern, printed), f"{pattern!r} is not in:\n{printed}"


def test_an_example_uses_names_of_its_own() -> None:
    """In one Redis, no example finds, changes or expires a session of another one, of README or of the tutorial."""
    owners: dict[str, set[str]] = {}
    texts = {name: (EXAMPLES / f"{name}.py").read_text() for name in EXPECTED}
    texts |= {name: (ROOT / name).read_text() for name in ("README.md", "docs/tutorial.md")}
    for owner, text in texts.items():
        for site in re.findall(r'f?"([a-z][a-z.-]+)/(?:alice|bob|team|user-|\{account\})', text):
            owners.setdefault(site, set()).add(owner)
    owners.pop("shop.example")
    assert {site for site, found in owners.items() if len(found) > 1} == set()
    assert set().union(*owners.values()) == set(EXPECTED)


@pytest.mark.redis
def test_the_second_run_is_logged_in(tmp_path: Path) -> None:
    """The private Redis keeps the session of the first run."""
    run_example("wrap_a_block", tmp_path)
    printed = run_example("wrap_a_block", tmp_path)
    assert "reused=True outcome=reused" in printed
    assert "visit number 2" in printed


def test_the_readme_prepares_a_clone_for_every_example() -> None:
    """`scripts/prepare` is for bash: sourced in another shell it breaks, and where it fails it closes the terminal."""
    text = (EXAMPLES / "README.md").read_text()
    (group,) = re.findall(r"^bash -c '\. scripts/prepare (\w+)", text, re.MULTILINE)
    assert text.count("scripts/prepare") == 1
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    found = [group]
    for name in found:
        found += [each["include-group"] for each in groups[name] if isinstance(each, dict)]
    assert any(str(each).startswith("session-reuse[all") for name in found for each in groups[name])


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_names_what_it_needs(name: str) -> None:
    """The header names the package and its extras, so `uv run examples/x.py` works in an empty folder."""
    text = (EXAMPLES / f"{name}.py").read_text()
    assert re.match(
        r"# /// script\n# requires-python = \">=3\.11\"\n# dependencies = \[.*session-reuse.*\]\n# ///\n", text
    )
    for module in NEEDS.get(name, ()):
        assert module.replace("_", "-") in text.split("# ///")[1]
