"""The map of the house in the documentation: every file is on it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAP = TEXT.partition("```text\n")[2].partition("```")[0]
FILES = sorted(
    path.relative_to(ROOT)
    for room in ("symbio_core", "tasks", "flows", "deployments")
    for path in (ROOT / room).rglob("*")
    if path.suffix in {".py", ".sh"} and path.name != "__init__.py"
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_on_the_map(path: Path) -> None:
    assert re.search(rf"(?<![\w.]){re.escape(path.name)}(?!\w)", MAP), f"{path} is not on the map"


def test_the_map_names_no_file_that_is_gone() -> None:
    known = {path.name for path in (*ROOT.iterdir(), *(ROOT / "symbio_core").rglob("*"))}
    known |= {path.name for path in FILES} | {"final-report.json"}  # the last is a file of a run
    assert set(re.findall(r"[\w.-]+\.(?:py|sh|css|html|json|toml|yaml|md)\b", MAP)) <= known
