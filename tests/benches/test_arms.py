"""What all benches share."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.table import Table

from symbio_core import benches
from symbio_core.benches import arms
from symbio_core.config import changed
from symbio_core.profiles import smoke

FIGURES = sorted((Path(__file__).parents[2] / "docs").glob("*.json"))


def strings(value: Any) -> Iterator[str]:
    """All text within plain data."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize(
    ("corpus", "told"), [("/home/me/notes.txt", "notes.txt"), ("gs://b/notes.txt",) * 2]
)
def test_figures_tell_the_settings_but_no_folder_of_the_machine(corpus: str, told: str) -> None:
    config = changed(smoke(), {"storage.root": "/home/me/runs", "data.corpus": corpus})
    settings = arms.heading("any", config, 1)["config"]
    assert settings["data"]["corpus"] == told
    assert settings["seed"] == config.seed
    assert "root" not in settings["storage"]


def test_figures_tell_which_code_they_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    told = arms.heading("any", smoke(), 1)["code"]
    assert told["torch"] == torch.__version__
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", told["commit"])
    monkeypatch.setenv("PATH", "")
    assert "commit" not in arms.heading("any", smoke(), 1)["code"]


@pytest.mark.parametrize("file", FIGURES, ids=lambda file: file.stem)
def test_committed_figures_name_no_folder(file: Path) -> None:
    assert not [text for text in strings(json.loads(file.read_text())) if text.startswith("/")]


BLOCKED = """
import os, sys
from pathlib import Path
from symbio_core.benches import arms

def block(name):
    Path(name).write_text(str(os.getpid()))
    while True:
        os.read(os.pipe()[0], 1)

if __name__ == "__main__":
    list(arms.each(block, sys.argv[1:], 2))
"""


@pytest.mark.slow
def test_workers_end_with_a_bench_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "blocked.py"
    script.write_text(BLOCKED)
    files = [tmp_path / "one", tmp_path / "two"]
    bench = subprocess.Popen([sys.executable, script, *files], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 120
    while not all(file.exists() and file.read_text() for file in files):
        assert bench.poll() is None
        assert time.monotonic() < deadline
    workers = [int(file.read_text()) for file in files]
    bench.kill()
    bench.wait()
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline


def is_running(pid: int) -> bool:
    """Whether a process lives; one that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_figures_of_every_bench_tell_when_where_and_under_which_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = benches.Bench("nothing", lambda *_: (Table(), {"bench": "bare", "summary": {}}))
    monkeypatch.setitem(benches.BENCHES, "bare", bare)
    found = benches.run("bare", smoke(), seeds=2, jobs=1, say=print).data
    assert found["config"]["profile"] == "smoke"
    assert found["seeds"] == 2
    assert {"date", "machine", "model", "summary"} <= found.keys()
