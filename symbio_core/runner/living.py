"""The loop over phases in plain Python: the same moves that the parent flow makes."""

from __future__ import annotations

from symbio_core.errors import ConfigError
from symbio_core.records import Decision, PhasePlan
from symbio_core.report import FinalReport
from symbio_core.runner.run import Run


def live(run: Run) -> FinalReport:
    """Live a run from wherever it stands to its end and return the report.

    A person cannot be asked here, so where the settings say `ask`, the run goes on.

    Raises:
        ConfigError: the settings send phases to another machine, which takes Prefect.
        LeaseHeld: another process, or another thread of this one, lives the run.
    """
    if run.config.compute.kind != "local":
        raise ConfigError(
            f"compute.kind is '{run.config.compute.kind}', which needs Prefect to reach the other "
            "machine; run it without --plain, or set compute.kind=local"
        )
    run.hold()
    try:
        while (plan := run.plan_next()) is not None:
            run.train(plan)
            judge(run, plan)
        return run.finish()
    finally:
        run.release()


def judge(run: Run, plan: PhasePlan) -> Decision:
    """Put a trained phase through its gates and go where the decision leads."""
    run.write_battery(plan)
    verdicts = (
        *run.judge_battery(plan),
        *run.judge_overfitting(plan),
        *run.judge_plateau(plan),
    )
    decision = run.decide(plan, verdicts)
    if decision.kind == "ask":
        decision = run.decide(plan, verdicts, choice="continue")
    return decision
