"""The moves of a run as Prefect tasks: open, plan, train, decide, finish."""

from __future__ import annotations

from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from symbio_core.config import RunConfig
from symbio_core.records import Decision, Outcome, PhasePlan, Verdict
from symbio_core.report import FinalReport
from tasks.showing import progress_shown
from tasks.working import claimed, close, in_thread, is_retryable, keep_open, run_at


@task(name="open run", cache_policy=NO_CACHE, persist_result=False)
async def open_run(config: RunConfig, run_id: str | None) -> str:
    """Begin a run, or go on with the one of that name; return its name."""
    run = await in_thread(claimed, config, run_id)
    # Not before: whoever is cancelled while it opens keeps nobody from the run.
    keep_open(config.storage.root, run)
    return run.run_id


@task(name="plan next phase", cache_policy=NO_CACHE, persist_result=False)
async def plan_next(root: str, run_id: str) -> PhasePlan | None:
    """Return what to run next, or None when the run is over."""
    return await in_thread(run_at(root, run_id).plan_next)


@task(
    name="train phase",
    task_run_name="train {plan.phase}",
    retries=2,
    retry_delay_seconds=5,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def train_phase(root: str, run_id: str, plan: PhasePlan) -> Outcome:
    """Run the phase to its end; an interrupted one goes on from its last checkpoint."""
    async with progress_shown(run_id):
        return await in_thread(run_at(root, run_id).train, plan)


@task(
    name="decide",
    task_run_name="decide after {plan.phase}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def decide(
    root: str,
    run_id: str,
    plan: PhasePlan,
    verdicts: tuple[Verdict, ...],
    choice: Literal["continue", "stop", "repeat"] | None = None,
) -> Decision:
    """Decide what follows, write it into the journal, and go there."""
    return await in_thread(run_at(root, run_id).decide, plan, verdicts, choice)


@task(
    name="finish run",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def finish(root: str, run_id: str, reason: str | None = None) -> FinalReport:
    """Write the report and the model to take away, and close the run."""
    report = await in_thread(run_at(root, run_id).finish, reason)
    close(root, run_id)
    return report
