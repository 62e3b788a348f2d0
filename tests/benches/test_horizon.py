"""How far a lead moves: exact cases, and the real thing in miniature."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from symbio_core.benches import horizon
from symbio_core.config import changed
from tests.conftest import tiny

MARKS = (60, 120, 600)


def test_marks_double_and_end_with_the_budget() -> None:
    assert horizon.marks_of(100) == (15, 30, 60, 100)
    assert horizon.marks_of(60) == (15, 30, 60)
    assert horizon.marks_of(10) == (10,)


def test_a_gap_that_stays_does_not_move() -> None:
    assert horizon.moved(MARKS, np.full((2, 3, 3), 0.2)) == 0.0


def test_a_gap_that_moves_with_the_logarithm_of_steps_moves_at_its_rate() -> None:
    gaps = 0.03 * np.log(np.array(MARKS))[None, None, :]
    assert math.isclose(horizon.moved(MARKS, gaps), 0.03)


def test_every_function_is_read_at_every_mark(tiny_corpus: Path, tmp_path: Path) -> None:
    config = changed(tiny(tiny_corpus, tmp_path / "storage"), {"budget.steps": 60})
    said: list[str] = []
    _, data = horizon.measure(config, 1, 1, said.append)
    assert len(said) == len(horizon.FORMULAS)
    assert data["steps"] == [15, 30, 60]
    assert all(len(row) == 3 for rows in data["gaps_nats"].values() for row in rows)
    assert data["gaps_nats"]["gelu(x)"] == [[0.0, 0.0, 0.0]]
    assert data["summary"]["moved_nats_an_e_fold"] > 0.0
