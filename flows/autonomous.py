"""The whole life of a run, told once: open, six phases with gates between them, finish."""

from __future__ import annotations

from uuid import UUID

from prefect import flow, get_client, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

from flows.asking import ask_person
from flows.phases import live_phase
from symbio_core.config import RunConfig
from symbio_core.errors import Interrupted, PriceCapReached, SymbioError
from symbio_core.profiles import profile
from symbio_core.records import Decision, PhasePlan
from symbio_core.report import FinalReport
from tasks.life import decide, finish, open_run, plan_next
from tasks.machines import more_money, remove_machine
from tasks.telling import Payload, announce, show_phase, show_report
from tasks.working import close, run_at

DEMO = profile("demo")


@flow(name="symbio")
async def symbio(
    config: RunConfig = DEMO, run_id: str | None = None
) -> FinalReport | State[SymbioError]:
    """Train a small language model on a corpus by itself, through six phases with gates between.

    Args:
        config: All of the run's settings: what it reads, what it trains, what it may spend.
        run_id: The run's name. A known one goes on where it stands; empty makes a new one.
    """
    try:
        run_id = await open_run(config, run_id or _name_taken_before())
        try:
            await _take_name(run_id)
            return await live(config, run_id)
        finally:
            close(config.storage.root, run_id)
    except Interrupted as stop:
        return Cancelled(message=str(stop), data=stop)
    except SymbioError as error:
        return Failed(message=str(error), data=error)


async def live(config: RunConfig, run_id: str) -> FinalReport:
    """Go through a run's life; whatever its journal holds already is not done again."""
    root = config.storage.root
    reason = None
    try:
        await live_phases(config, run_id)
    except PriceCapReached as cap:
        run = run_at(root, run_id)
        if not run.attempts:
            # There is nothing to report yet; what was saved stays.
            raise PriceCapReached(f"{cap}; {more_money(run)}") from cap
        reason = str(cap)
    finally:
        await remove_machine(root, run_id)

    report = await finish(root, run_id, reason)
    await show_report(root, run_id, report)
    announce("symbio.run.completed", run_id, {"verdict": report.verdict})
    return report


async def live_phases(config: RunConfig, run_id: str) -> None:
    """Go from phase to phase until nothing is left to run."""
    root = config.storage.root
    while (plan := await plan_next(root, run_id)) is not None:
        verdicts = await live_phase(root, run_id, plan)
        decision = await decide(root, run_id, plan, verdicts)
        if decision.kind == "ask":
            choice = await ask_person(decision.reason, config.budget.ask_timeout_s)
            decision = await decide(root, run_id, plan, verdicts, choice)
        await show_phase(root, run_id)

        match decision.kind:
            case "rollback":
                announce("symbio.rollback", run_id, _facts(plan, decision))
            case "repeat":
                announce("symbio.phase.repeated", run_id, _facts(plan, decision))
            case _:
                announce("symbio.phase.completed", run_id, _facts(plan, decision))
        if any(verdict.name == "regression" and not verdict.passed for verdict in verdicts):
            announce("symbio.quality.regression", run_id, _facts(plan, decision))


def _name_taken_before() -> str | None:
    # A retried flow run goes on with the run that it opened, whose name it took.
    return runtime.flow_run.name if runtime.flow_run.run_count > 1 else None


async def _take_name(run_id: str) -> None:
    async with get_client() as client:
        await client.set_flow_run_name(UUID(runtime.flow_run.id), run_id)


def _facts(plan: PhasePlan, decision: Decision) -> Payload:
    return {
        "phase": plan.phase,
        "attempt": plan.attempt,
        "decision": decision.kind,
        "reason": decision.reason,
    }
