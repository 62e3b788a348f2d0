"""Turns that a life seldom takes, through the real parent flow: waking up, and running late."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from symbio_core import gates, progress
from symbio_core.progress import Progress
from symbio_core.records import Change, Outcome, Verdict
from symbio_core.runner import pace
from symbio_core.runner.phase import PhaseRun
from tests.flows.test_planted_life import attempts, calm, digest, lived, started_from, starts

__all__ = ["starts"]  # the fixture


SHORTER = (Change(setting="rung_scale", op="scale", value=0.5),)


def weights(run: Any) -> str:
    assert run.state.line is not None
    return digest(run.vault.load(run.state.line).member.arrays())


@pytest.fixture
def wolf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector cries wolf once: a healthy end of cambrian is put to sleep."""
    honest = gates.judge_overfitting

    def crying(outcome: Outcome, *others: Any) -> tuple[Verdict, ...]:
        found = honest(outcome, *others)
        if outcome.phase != "cambrian":
            return found
        return tuple(
            v.model_copy(update={"passed": False, "changes": SHORTER})
            if v.name == "train/validation divergence"
            else v
            for v in found
        )

    monkeypatch.setattr(gates, "judge_overfitting", crying)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], str]:
    """Digest of what every attempt really ended with."""
    seen: dict[tuple[str, int], str] = {}
    finish = PhaseRun._finish

    def noted(self: PhaseRun) -> Any:
        seen[self.plan.phase, self.plan.attempt] = digest(self.line.arrays())
        return finish(self)

    monkeypatch.setattr(PhaseRun, "_finish", noted)
    return seen


SLOW = {"optimiser.schedule": "seed", "phases.oxidation.lr_factor": 0.02}
"""Oxidation learns so slowly that it cannot catch up with the sleeper."""


@pytest.mark.usefixtures("wolf")
def test_a_sleeper_that_is_better_than_the_line_wakes_when_oxidation_ends(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    ends: dict[tuple[str, int], str],
) -> None:
    config = calm(tiny_corpus, tmp_path, **SLOW, **{"gates.regression_frac": 0.99})
    run = lived(config, "sleeper")
    (asleep,) = attempts(run, "cambrian")
    sleeper = asleep.outcome.end.id
    assert (asleep.decision.kind, asleep.decision.dormant) == ("dormant", sleeper)
    assert asleep.decision.start != sleeper
    last = attempts(run, "oxidation")[-1]
    assert (last.decision.rule, last.decision.start) == ("revival", sleeper)
    assert last.outcome.end.val_bpb > asleep.outcome.end.val_bpb
    assert started_from(starts, "endosymbiosis", 1) == ends["cambrian", 1]
    assert started_from(starts, "oxidation", 1) != ends["cambrian", 1]


@pytest.mark.usefixtures("wolf")
def test_a_regression_rolls_back_to_a_sleeper_where_that_is_the_best_there_is(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    ends: dict[tuple[str, int], str],
) -> None:
    run = lived(calm(tiny_corpus, tmp_path, **SLOW), "woken")
    (asleep,) = attempts(run, "cambrian")
    first = attempts(run, "oxidation")[0]
    assert first.decision.kind == "rollback"
    assert first.decision.start == asleep.decision.dormant == asleep.outcome.end.id
    assert started_from(starts, "oxidation", 2) == ends["cambrian", 1]


def test_a_phase_that_runs_late_starts_again_from_its_checkpoint_and_loses_nothing(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "MIN_WATCHED_S", 0.5)
    monkeypatch.setattr(pace, "REPORT_EVERY_S", 0.02)
    in_time = lived(calm(tiny_corpus, tmp_path / "a", **{"gates.overtime": 50.0}), "late")
    journal = tmp_path / "b" / "storage" / "runs" / "late" / "journal"

    def slow_to_show(report: Progress) -> None:
        # Whoever shows the progress takes so long over it that the phase comes to a crawl.
        if report.phase == "cambrian" and not any(
            b'"noted"' in segment.read_bytes() for segment in journal.iterdir()
        ):
            time.sleep(0.4)

    silence = progress.subscribe(slow_to_show)
    try:
        run = lived(calm(tiny_corpus, tmp_path / "b", **{"gates.overtime": 3.0}), "late")
    finally:
        silence()
    told = [e["message"] for e in run.events if e["event"] == "noted"]
    assert [m for m in told if m.startswith("phase cambrian takes more than 3× the time")]
    events = [(e["event"], e.get("plan", {}).get("phase")) for e in run.events]
    late = next(i for i, e in enumerate(run.events) if e["event"] == "noted")
    assert ("planned", "cambrian") in events[:late], "it was noticed while the phase was under way"
    ends = [[a.outcome.end.val_nats for a in one.attempts] for one in (run, in_time)]
    assert ends[0] == ends[1]
    assert weights(run) == weights(in_time), "the same bits as a run that was in time"
