"""What a phase is measured against: the best text of all, and what its own line did before."""

from __future__ import annotations

from symbio_core import runner
from symbio_core.config import RunConfig
from symbio_core.records import Interval
from symbio_core.runner import Run
from symbio_core.runner.living import judge


def trained(run: Run) -> None:
    plan = run.plan_next()
    assert plan is not None
    run.train(plan)
    run.write_battery(plan)


def test_a_regression_is_measured_against_the_best_text_and_not_the_lowest_loss(
    tiny_config: RunConfig,
) -> None:
    run = runner.open_run(tiny_config, "faded")
    trained(run)
    plan = run.under_way
    assert plan is not None
    judge(run, plan)
    best = run.state.best
    assert best is not None
    assert run.state.best_text == best
    trained(run)
    plan = run.under_way
    assert plan is not None
    eloquent = best.model_copy(
        update={"id": "eloquent", "quality": Interval(value=0.99, low=0.98, high=1.0)}
    )
    state = run.state.model_copy(update={"best_text": eloquent})
    run._folded = run._folded.model_copy(update={"state": state})
    verdict = next(v for v in run.judge_battery(plan) if v.name == "regression")
    assert not verdict.passed
    battery = run._folded.pending.battery if run._folded.pending else None
    assert battery is not None
    assert verdict.value == battery.quality.value / 0.99
