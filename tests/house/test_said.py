"""What a passing test says of itself, its seed above all, is shown after the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[2]
ONE = """
from tests.conftest import SAID

def test_one(record_property):
    record_property(SAID, "seed 7")
"""


def test_seeds_of_passing_tests_are_shown(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_terminal_summary\n")
    (tmp_path / "test_one.py").write_text(ONE)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [*command, "-c", "/dev/null", "-p", "no:cacheprovider", str(tmp_path / "test_one.py")],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_one: seed 7" in done.stdout.splitlines()
