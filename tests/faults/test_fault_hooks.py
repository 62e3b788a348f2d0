"""Die before each single file operation of a save, a journal line, a decision: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.dying import WHERE

HOUSE = Path(__file__).parents[2]
SINGLE = {"open", "write", "write the rest", "fsync", "replace", "unlink"}


@pytest.fixture(scope="module")
def deaths(
    tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("dying")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.dying", str(tiny_corpus), str(folder), *WHERE],
        capture_output=True,
        text=True,
        cwd=HOUSE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(WHERE, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("stage", WHERE)
def test_whoever_dies_before_any_file_operation_goes_on_to_the_same_bits(
    stage: str, deaths: dict[str, list[dict[str, Any]]]
) -> None:
    tried = deaths[stage]
    assert [death["number"] for death in tried if death["died"]] == list(range(len(tried) - 1))
    assert [death for death in tried if death["differs"]] == []


@pytest.mark.parametrize("stage", WHERE)
def test_each_operation_that_writing_takes_is_among_those_tried(
    stage: str, deaths: dict[str, list[dict[str, Any]]]
) -> None:
    names = [death["operation"] for death in deaths[stage]]
    assert {"unlink", "fsync"} <= set(names)
    if stage != "retention":
        assert set(names) >= SINGLE
        assert names.count("replace") == names.count("write the rest")
