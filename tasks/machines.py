"""The cloud machines that this process keeps for its runs: kept while a run lives, then removed."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import anyio
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL, get_current_settings

from symbio_core.errors import LeaseHeld, LeaseLost
from tasks.working import in_thread, is_retryable, run_at

if TYPE_CHECKING:
    from symbio_core.runner import Run
    from symbio_core.runner.machines import RunMachine

_machines: dict[tuple[str, str], RunMachine] = {}


def machine_of(root: str, run_id: str) -> RunMachine | None:
    """Return the run's machine in the cloud; None where its phases run on no such machine."""
    from symbio_core.runner.accounts import enter_costs
    from symbio_core.runner.machines import RunMachine

    run = run_at(root, run_id)
    if run.config.compute.kind != "gce":
        return None
    kept = _machines.get((root, run_id))
    if kept is None or kept.is_called_off:
        _machines[root, run_id] = RunMachine(
            run_id,
            run.config,
            run.store.store,
            api_url=PREFECT_API_URL.value() or "",
            say=get_run_logger().info,
            # Whichever object holds the run open by then writes its journal.
            account=lambda ledger: enter_costs(run_at(root, run_id), ledger),
            secrets=_own_secrets(),
        )
    return _machines[root, run_id]


def more_money(run: Run) -> str:
    """Say how a run goes on that the cap on dollars has ended before it could tell anything."""
    from symbio_core.runner import resume_command

    return f"go on with: {resume_command(run)} --max-cost MORE"


def _own_secrets() -> dict[str, str]:
    """Return this process's environment, with what `prefect cloud login` keeps in a profile."""
    api = get_current_settings().api
    found = {
        "PREFECT_API_KEY": api.key.get_secret_value() if api.key else "",
        "PREFECT_API_AUTH_STRING": api.auth_string.get_secret_value() if api.auth_string else "",
    }
    return {**os.environ, **{name: value for name, value in found.items() if value}}


async def remove_machine(root: str, run_id: str) -> None:
    """Delete whatever machine the run has in the cloud; on whatever way the run ended."""
    if run_at(root, run_id).config.compute.kind == "gce":
        with anyio.CancelScope(shield=True):
            await _remove_machine(root, run_id)


@task(
    name="remove machine",
    retries=3,
    retry_delay_seconds=5,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def _remove_machine(root: str, run_id: str) -> None:
    run = run_at(root, run_id)
    # A thread of this process may be launching it at this moment: that has to end first.
    machine = _machines.get((root, run_id)) or machine_of(root, run_id)
    assert machine is not None
    machine.call_off()
    try:
        await in_thread(run.claim)
    except (LeaseHeld, LeaseLost) as taken:
        # Another parent keeps the run by now, and the machine is that one's.
        get_run_logger().warning(f"machines are left alone: {taken}")
        return
    ledger = await asyncio.to_thread(machine.remove)
    _machines.pop((root, run_id), None)
    ended = max((s.ended or s.started for a in ledger.attempts for s in a.stays), default=0.0)
    get_run_logger().info(
        f"{len(ledger.attempts)} machines, {ledger.seconds(ended):.0f} s, ${ledger.usd(ended):.2f}"
    )
