"""The six phases, each a flow of its own: they differ in numbers, which live in the settings."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from symbio_core.errors import Interrupted
from symbio_core.records import PhasePlan, Verdict
from tasks.elsewhere import live_elsewhere, runs_elsewhere, sitting
from tasks.gates import judge_battery, judge_overfitting, judge_plateau, write_battery
from tasks.life import train_phase

RUN_NAME = "{plan.phase} · attempt {plan.attempt}"
Lived = tuple[Verdict, ...] | State[Interrupted]
"""What a phase flow returns: what the gates found, or that somebody stopped it."""


@flow(name="abiogenesis", flow_run_name=RUN_NAME)
async def abiogenesis(root: str, run_id: str, plan: PhasePlan, turn: int = 0) -> Lived:
    """Begin: a baseline with GELU, no search."""
    return await _live_through(root, run_id, plan, turn)


@flow(name="primordial", flow_run_name=RUN_NAME)
async def primordial(root: str, run_id: str, plan: PhasePlan, turn: int = 0) -> Lived:
    """Explore: a wide search over small expressions."""
    return await _live_through(root, run_id, plan, turn)


@flow(name="cambrian", flow_run_name=RUN_NAME)
async def cambrian(root: str, run_id: str, plan: PhasePlan, turn: int = 0) -> Lived:
    """Diversify: more candidates, deeper expressions."""
    return await _live_through(root, run_id, plan, turn)


@flow(name="oxidation", flow_run_name=RUN_NAME)
async def oxidation(root: str, run_id: str, plan: PhasePlan, turn: int = 0) -> Lived:
    """Converge: strong coupling and pruning; ends with the confirmation on fresh seeds."""
    return await _live_through(root, run_id, plan, turn)


@flow(name="endosymbiosis", flow_run_name=RUN_NAME)
async def endosymbiosis(root: str, run_id: str, plan: PhasePlan, turn: int = 0) -> Lived:
    """Train the winner for long, without search."""
    return await _live_through(root, run_id, plan, turn)


@flow(name="homeostasis", flow_run_name=RUN_NAME)
async def homeostasis(root: str, run_id: str, plan: PhasePlan, turn: int = 0) -> Lived:
    """Refine at a very low learning rate, watching for regression."""
    return await _live_through(root, run_id, plan, turn)


PHASE_FLOWS = {
    "abiogenesis": abiogenesis,
    "primordial": primordial,
    "cambrian": cambrian,
    "oxidation": oxidation,
    "endosymbiosis": endosymbiosis,
    "homeostasis": homeostasis,
}


async def live_phase(root: str, run_id: str, plan: PhasePlan) -> tuple[Verdict, ...]:
    """Have a phase trained where the settings say, and judge it here."""
    if not runs_elsewhere(root, run_id):
        lived: Lived = await PHASE_FLOWS[plan.phase](root, run_id, plan)
        # Prefect raises the error that a cancelled flow returns.
        assert not isinstance(lived, State)
        return lived
    await live_elsewhere(root, run_id, plan)
    return await _judge(root, run_id, plan)


async def _live_through(root: str, run_id: str, plan: PhasePlan, turn: int) -> Lived:
    try:
        if turn == 0:
            await train_phase(root, run_id, plan)
            await write_battery(root, run_id, plan)
            return await _judge(root, run_id, plan)
        # A parent waits elsewhere, counts our turns, and judges what we leave in the storage.
        async with sitting(root, run_id, plan, turn):
            await train_phase(root, run_id, plan)
            await write_battery(root, run_id, plan)
        return ()
    except Interrupted as stop:
        return Cancelled(message=str(stop), data=stop)


async def _judge(root: str, run_id: str, plan: PhasePlan) -> tuple[Verdict, ...]:
    return (
        *await judge_battery(root, run_id, plan),
        *await judge_overfitting(root, run_id, plan),
        *await judge_plateau(root, run_id, plan),
    )
