"""The turns a life can take: rollback, dormancy, overtime, exhausted attempts; on real weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from symbio_core import lifecycle, runner
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.records import Decision, PhasePlan, Verdict
from symbio_core.runner import Run
from symbio_core.runner.pace import Pace
from tests.conftest import tiny


def verdict(name: str, *, passed: bool) -> Verdict:
    gate = "overfitting" if "divergence" in name else "battery"
    return Verdict(
        gate=gate, name=name, metric="planted", value=0.0, threshold=0.0, passed=passed, reason=name
    )


def phase(run: Run, *verdicts: Verdict) -> tuple[PhasePlan, Decision]:
    """Train the next phase for real and judge it as the test says."""
    plan = run.plan_next()
    assert plan is not None
    run.train(plan)
    run.write_battery(plan)
    return plan, run.decide(plan, verdicts or (verdict("progress", passed=True),))


def weights(run: Run, checkpoint: str) -> dict[str, np.ndarray]:
    return run.vault.load(checkpoint).member.arrays()


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_a_rollback_really_restores_weights_optimiser_and_function(tiny_config: RunConfig) -> None:
    run = runner.open_run(tiny_config, "back")
    phase(run)
    best = run.state.best
    assert best is not None
    before = weights(run, best.id)
    plan, decision = phase(
        run, verdict("progress", passed=False), verdict("regression", passed=False)
    )
    ended = run.attempts[-1].outcome.end
    assert (decision.kind, decision.start) == ("rollback", best.id)
    assert not same(weights(run, ended.id) if ended.id in run.state.known else {}, before)
    again = run.plan_next()
    assert again is not None
    assert (again.phase, again.attempt, again.start) == (plan.phase, 2, best.id)
    assert again.adaptation != plan.adaptation, "the same again is no second try"
    assert same(weights(runner.reopen(tiny_config.storage.root, "back"), best.id), before)
    outcome = run.train(again)
    assert outcome.start.id == best.id
    assert outcome.points[0].val_nats == pytest.approx(
        run.attempts[0].outcome.points[-1].val_nats, abs=1e-12
    )


def test_what_learns_by_heart_sleeps_and_the_run_goes_on_from_its_best(
    tiny_config: RunConfig,
) -> None:
    run = runner.open_run(tiny_config, "sleep")
    phase(run)
    _, decision = phase(
        run,
        verdict("progress", passed=True),
        verdict("train/validation divergence", passed=False),
    )
    outcome = run.attempts[-1].outcome
    assert decision.kind == "dormant"
    assert [ref.id for ref in run.state.dormant] == [outcome.end.id]
    # Here the planted verdict meets a phase whose end was its best, so its start is what is left.
    assert decision.start == (
        outcome.start.id if outcome.best.id == outcome.end.id else outcome.best.id
    )
    assert weights(run, outcome.end.id), "a dormant checkpoint can still be loaded"
    assert run.plan_next() is not None


def test_attempts_run_out_and_the_run_goes_on_flagged(tiny_config: RunConfig) -> None:
    run = runner.open_run(tiny_config, "stubborn")
    kinds = [phase(run, verdict("progress", passed=False))[1].kind for _ in range(2)]
    assert kinds == ["repeat", "advance"]
    assert run.state.flags
    assert run.attempts[-1].decision.flagged


def test_a_person_can_be_asked(tiny_config: RunConfig) -> None:
    config = changed(tiny_config, {"budget.on_exhausted": "ask", "budget.max_attempts": 1})
    run = runner.open_run(config, "asked")
    plan, decision = phase(run, verdict("progress", passed=False))
    assert decision.kind == "ask"
    assert run.under_way == plan, "nothing is decided before the person answers"
    stopped = run.decide(plan, (verdict("progress", passed=False),), "stop")
    assert stopped.kind == "finish"
    assert run.plan_next() is None
    assert lifecycle.replay(run.config, run.events) == run.state


def test_overtime_restarts_the_phase_once_from_its_checkpoint_with_the_same_result(
    tiny_config: RunConfig, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = runner.open_run(tiny(tiny_corpus, tmp_path / "plain"), "plain")
    expected = plain.train(plain.plan_next() or pytest.fail("no plan"))
    calls = []

    def once(_: Pace, spent: int) -> bool:
        calls.append(spent)
        return len(calls) == 1

    monkeypatch.setattr(Pace, "is_overtime", once)
    run = runner.open_run(tiny_config, "late")
    outcome = run.train(run.plan_next() or pytest.fail("no plan"))
    assert any(event["event"] == "noted" for event in run.events)
    assert outcome.end.val_nats == expected.end.val_nats
    assert outcome.steps == expected.steps


def test_overtime_is_called_by_a_clock_and_a_prediction(tiny_config: RunConfig) -> None:
    now = [0.0]
    pace = Pace(
        tiny_config,
        "clock",
        1,
        run_seconds=0.0,
        phase_seconds=0.0,
        predicted_s=30.0,
        clock=lambda: now[0],
    )
    now[0] = 59.0
    assert not pace.is_overtime(1)
    now[0] = 61.0
    assert pace.is_overtime(1)


def test_knowledge_without_weights_begins_each_phase_afresh(tiny_config: RunConfig) -> None:
    run = runner.open_run(changed(tiny_config, {"inherit": "knowledge"}), "fresh")
    phase(run)
    plan = run.plan_next()
    assert plan is not None
    outcome = run.train(plan)
    assert outcome.points[0].val_nats > 5.0, "about the loss of a guess among 300 tokens"
    assert outcome.generations, "the search goes on"


def test_a_life_on_knowledge_alone_passes_its_gates(tiny_config: RunConfig) -> None:
    afresh = {"inherit": "knowledge", "without": ["search", "final"]}
    run = runner.open_run(changed(tiny_config, afresh), "knowing")
    runner.live(run)
    assert [a.outcome.phase for a in run.attempts] == list(PHASES)
    assert all(v.passed for a in run.attempts for v in a.verdicts if v.name == "progress")
    assert run.state.rollbacks == 0
