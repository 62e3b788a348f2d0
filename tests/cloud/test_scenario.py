"""Which of a scenario's draws counts."""

from __future__ import annotations

from tests.cloud.scenario import DRAWS, Result, until_all_comes

CAME = Result(seed=1, hazards=["host crash"])
MISSED = Result(seed=1, missed=["phase hangs"])
FAILED = Result(seed=1, missed=["phase hangs"], why="AssertionError: the ledger is not the bill")


def lived(*results: Result) -> tuple[Result, int]:
    """Return what counts of these draws, and how many of them were lived."""
    left = list(results)
    return until_all_comes(lambda draw: left.pop(0)), len(results) - len(left)


def test_hazards_are_drawn_again_where_one_never_came_to_pass() -> None:
    assert lived(CAME, FAILED) == (CAME, 1)
    assert lived(MISSED, CAME, FAILED) == (CAME, 2)
    assert CAME.ok


def test_a_failure_stands_though_a_hazard_was_still_to_come() -> None:
    assert lived(FAILED, CAME) == (FAILED, 1)
    assert not FAILED.ok


def test_a_scenario_whose_hazards_never_come_is_not_well() -> None:
    result, draws = lived(*[MISSED] * DRAWS)
    assert draws == DRAWS
    assert not result.ok
