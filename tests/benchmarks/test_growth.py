"""The growth benchmark runs, and shows what it is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_growth_is_measured_in_one_command(tmp_path: Path) -> None:
    """`--quick` fills a server of its own, finds all that has expired at each size, and writes its numbers."""
    file = tmp_path / "growth.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "growth.py"), "--quick", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140, check=True)
    assert "µs per expired" in done.stdout
    results = json.loads(file.read_text("utf-8"))["results"]
    assert [each["sessions"] for each in results] == [500, 2000]
    assert all(each["restore"] > 0 and each["few"] > 0 and each["memory"] > 500 for each in results)
