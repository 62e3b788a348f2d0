"""The gate between two phases as Prefect tasks: let the model write, then judge three ways."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from symbio_core.records import Battery, PhasePlan, Verdict
from tasks.showing import progress_shown
from tasks.working import in_thread, is_retryable, run_at

P = ParamSpec("P")
R = TypeVar("R")
Body = Callable[P, Coroutine[Any, Any, R]]


def gate(name: str) -> Callable[[Body[P, R]], Task[P, Coroutine[Any, Any, R]]]:
    """Return the decorator of a task of the gate called ``name``; all are retried alike."""
    return task(
        name=name,
        task_run_name=name + " of {plan.phase}",
        retries=2,
        retry_delay_seconds=5,
        retry_jitter_factor=0.5,
        retry_condition_fn=is_retryable,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


@gate("write battery")
async def write_battery(root: str, run_id: str, plan: PhasePlan) -> Battery:
    """Let the model write: every prompt at every temperature, scored against human text."""
    async with progress_shown(run_id):
        return await in_thread(run_at(root, run_id).write_battery, plan)


@gate("judge battery")
async def judge_battery(root: str, run_id: str, plan: PhasePlan) -> tuple[Verdict, ...]:
    """Ask whether the phase made the model better, and whether it broke something."""
    return await in_thread(run_at(root, run_id).judge_battery, plan)


@gate("judge overfitting")
async def judge_overfitting(root: str, run_id: str, plan: PhasePlan) -> tuple[Verdict, ...]:
    """Ask whether the model or the search has begun to learn by heart."""
    return await in_thread(run_at(root, run_id).judge_overfitting, plan)


@gate("judge plateau")
async def judge_plateau(root: str, run_id: str, plan: PhasePlan) -> tuple[Verdict, ...]:
    """Ask whether the search stands still, and which way out there is."""
    return await in_thread(run_at(root, run_id).judge_plateau, plan)
