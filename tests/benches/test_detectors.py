"""The bench of the detectors: faults that are really caused, and a table that can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from symbio_core import benches
from symbio_core.benches import detectors
from symbio_core.benches.detectors.lives import Life, tiny, tried
from symbio_core.benches.detectors.plants import (
    GROWN,
    HEALTHY,
    PLANTS,
    SHORT,
    WELL,
    one_generation,
)
from symbio_core.benches.detectors.texts import LINES, ten_lines
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.profiles import smoke
from symbio_core.runner.run import cache_of
from symbio_core.runner.workbench import Workbench

CASES = ("one function", "mirror image")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    root = tmp_path_factory.mktemp("detectors") / "storage"
    return changed(smoke(), {"storage.root": str(root)})


@pytest.fixture(scope="module")
def found(config: RunConfig) -> tuple[Table, dict[str, Any]]:
    return detectors.measure(config, 1, 1, lambda _: None, planted=CASES, healthy=())


def test_a_planted_fault_is_seen_by_its_detector_and_by_no_other(
    found: tuple[Table, dict[str, Any]],
) -> None:
    rows = found[1]["rows"]
    assert [row["case"] for row in rows] == list(CASES)
    for row in rows:
        assert detectors.fired_in(row) == {PLANTS[row["case"]].detector}
    assert found[1]["summary"]["min_planted_detected_frac"] == 1.0


@pytest.mark.parametrize("case", [case for case in PLANTS if case not in CASES])
def test_each_other_planted_fault_is_seen_by_its_detector(config: RunConfig, case: str) -> None:
    assert PLANTS[case].detector in detectors.fired_in(detectors._lived((config, case)))


def test_a_short_healthy_life_raises_no_alarm(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rungs = {"primordial": 6, "cambrian": 4, "oxidation": 4}
    short = {f"phases.{name}.rung_steps": steps for name, steps in rungs.items()}
    monkeypatch.setitem(HEALTHY, "short", WELL | short | {"budget.steps": 800})
    row = detectors._lived((config, "short"))
    assert [gate["phase"] for gate in row["gates"]] == list(PHASES)
    assert detectors.fired_in(row) == set()


def test_the_same_life_without_its_fault_is_silent(config: RunConfig, tmp_path: Path) -> None:
    life = Life(tiny(config, SHORT), tmp_path)
    life.phase("abiogenesis", GROWN)
    one_generation(life, tried("silu(x)", "gelu(x)+0.2·x"))
    assert len(life.outcomes[-1].generations) == 1
    assert detectors.fired(life.judged()) == []


def test_the_table_has_a_row_a_case_and_says_what_fired(
    found: tuple[Table, dict[str, Any]],
) -> None:
    table, data = found
    assert list(table.columns[0].cells)[: len(CASES)] == list(CASES)
    assert list(table.columns[3].cells)[: len(CASES)] == [PLANTS[c].detector for c in CASES]
    assert list(data["confusion"]) == list(CASES)
    for case in CASES:
        assert list(data["confusion"][case]) == list(detectors.DETECTORS)
        assert sum(data["confusion"][case].values()) == 1


def row(case: str, planted: str | None, *fired: str, seed: int = 1) -> dict[str, Any]:
    gates = [{"phase": "cambrian", "fired": list(fired)}, {"phase": "oxidation", "fired": []}]
    return {"case": case, "planted": planted, "seed": seed, "gates": gates, "seconds": 1.0}


def test_what_is_overlooked_masked_or_imagined_shows_in_the_summary() -> None:
    trap, collapse = "fusion trap", "population collapse"
    rows = [
        row("a", trap, trap),
        row("a", trap, trap, collapse),
        row("b", collapse, collapse),
        row("b", collapse, trap),
        row("well", None),
        row("well", None, trap),
    ]
    summary = detectors.summarised(rows)
    assert summary["min_planted_detected_frac"] == 0.5
    assert summary["a_detected_frac"] == 1.0
    assert summary["a_alone_frac"] == 0.5
    assert summary["b_detected_frac"] == 0.5
    assert summary["healthy_false_alarm_frac"] == 0.5
    assert summary["healthy_gate_false_alarm_frac"] == 0.25
    assert summary["healthy_gate_fusion_trap_frac"] == 0.25
    assert summary["healthy_gate_population_collapse_frac"] == 0.0
    assert summary["healthy_false_alarm_frac_ci_low"] < 0.5
    assert detectors.confusion(rows)["b"][trap] == 1


@pytest.mark.parametrize("name", detectors.DETECTORS)
def test_every_detector_that_fires_in_a_healthy_life_is_a_false_alarm(name: str) -> None:
    summary = detectors.summarised([row("well", None), row("well", None, name)])
    assert summary["healthy_false_alarm_frac"] == 0.5
    assert summary["healthy_gate_false_alarm_frac"] == 0.25


def test_every_detector_has_a_situation_of_its_own() -> None:
    assert {plant.detector for plant in PLANTS.values()} == set(detectors.DETECTORS)
    assert len(PLANTS) == len(detectors.DETECTORS)
    assert "detectors" in benches.catalogue()


def test_ten_lines_are_all_there_is_to_train_on_and_none_of_them_is_held_out(
    config: RunConfig, tmp_path: Path
) -> None:
    settings = tiny(config, ten_lines(config, tmp_path))
    splits = Workbench(settings, cache_of(settings)).data.splits
    lines = {line for text in splits.train for line in text.split("\n") if line}
    assert len(lines) == LINES
    assert len(splits.train) > 20, "they are repeated"
    held_out = {line for text in (*splits.validation, *splits.confirm) for line in text.split("\n")}
    assert not lines & held_out
