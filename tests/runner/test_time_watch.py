"""The time watch looks at every step, in every kind of work, and goes on looking."""

from __future__ import annotations

from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.config import RunConfig
from symbio_core.errors import Interrupted
from symbio_core.progress import Progress, clear_stop, request_stop, subscribe
from symbio_core.records import Outcome, PhasePlan
from symbio_core.runner import Run
from symbio_core.runner.living import judge
from symbio_core.runner.pace import Pace
from tests.conftest import tiny


@pytest.fixture(scope="module")
def plain(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """What the phases up to the final measure where nothing is late."""
    run = runner.open_run(tiny(tiny_corpus, tmp_path_factory.mktemp("plain")), "plain")
    return up_to_the_final(run)


def up_to_the_final(run: Run) -> list[Outcome]:
    while run.confirmation is None:
        plan = run.plan_next()
        assert plan is not None
        run.train(plan)
        judge(run, plan)
    return [attempt.outcome for attempt in run.attempts]


def told(run: Run) -> list[str]:
    return [str(event["message"]) for event in run.events if event["event"] == "noted"]


def same(one: Outcome, other: Outcome) -> bool:
    facts = ("points", "lr_probe", "line_steps", "search_steps", "confirm_steps", "skipped")
    ends = one.end.val_nats == other.end.val_nats
    return ends and all(getattr(one, name) == getattr(other, name) for name in facts)


def test_a_slow_step_is_seen_in_training_generations_and_final_alike(
    tiny_config: RunConfig, plain: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    late: set[tuple[str, str]] = set()
    here: dict[str, str] = {}
    report = Pace.report

    def reported(
        pace: Pace, plan: PhasePlan, activity: str, step: int, loss: float, formula: str
    ) -> None:
        here["phase"], here["activity"] = plan.phase, activity
        report(pace, plan, activity, step, loss, formula)

    def once_each(_: Pace, spent: int) -> bool:
        """Be late at the first step after this activity was seen in this phase."""
        key = (here.get("phase", ""), here.get("activity", ""))
        is_new = key not in late
        late.add(key)
        return is_new and bool(here)

    monkeypatch.setattr(Pace, "report", reported)
    monkeypatch.setattr(Pace, "is_overtime", once_each)
    run = runner.open_run(tiny_config, "late")
    found = up_to_the_final(run)
    seen = {activity for _, activity in late}
    assert seen >= {"training", "searching", "confirming"}
    assert len(told(run)) >= len(seen)
    assert all(same(one, other) for one, other in zip(found, plain, strict=True))


def test_each_restart_gives_more_time_and_the_watch_goes_on(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[float] = []

    def late_thrice(pace: Pace, spent: int) -> bool:
        if pace.overtime not in allowed:
            allowed.append(pace.overtime)
            return len(allowed) <= 3
        return False

    monkeypatch.setattr(Pace, "is_overtime", late_thrice)
    run = runner.open_run(tiny_config, "slow")
    plan = run.plan_next()
    assert plan is not None
    outcome = run.train(plan)
    assert outcome.stopped == "done"
    assert allowed == [2.0, 4.0, 8.0, 16.0]
    assert [message.split("× ")[0][-1] for message in told(run)] == ["2", "4", "8"]


def test_the_first_phase_is_predicted_from_its_own_first_steps(tiny_config: RunConfig) -> None:
    now = [0.0]
    pace = Pace(
        tiny_config, "first", 1, run_seconds=0.0, phase_seconds=0.0, predicted_s=None,
        clock=lambda: now[0],
    )  # fmt: skip
    now[0] = 500.0
    assert not pace.is_overtime(0)
    now[0] = 10.0
    pace.learn(20, 100)
    assert pace.predicted_s == 50.0
    now[0] = 99.0
    pace.learn(21, 100)
    assert not pace.is_overtime(21)
    now[0] = 101.0
    assert pace.is_overtime(21)


def test_the_first_phase_of_a_run_learns_its_pace(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[float | None] = []
    monkeypatch.setattr(
        Pace, "is_overtime", lambda pace, _: bool(known.append(pace.predicted_s) or False)
    )
    run = runner.open_run(tiny_config, "first")
    plan = run.plan_next()
    assert plan is not None
    run.train(plan)
    assert known[0] is None
    assert known[-1] is not None
    assert known[-1] > 0.0


def test_a_warm_trial_that_was_stopped_is_held_again(
    tiny_config: RunConfig, plain: list[Outcome]
) -> None:
    def listen(report: Progress) -> None:
        if report.activity == "note" and "fresh seeds" in report.message:
            request_stop()

    run = runner.open_run(tiny_config, "stopped")
    unsubscribe = subscribe(listen)
    with pytest.raises(Interrupted):
        up_to_the_final(run)
    unsubscribe()
    clear_stop()
    found = up_to_the_final(runner.reopen(tiny_config.storage.root, "stopped"))
    assert same(found[-1], plain[-1])
