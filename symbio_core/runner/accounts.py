"""What a run's machines cost and what was refused, as the storage and the journal keep it.

::

    runs/<run_id>/machines/
        ledger.json      every machine that was ordered; written before the order goes out
        failures.json    what was refused or lost since the run last made progress

A parent that starts again reads both. The journal gets a line for each change as well, so that the
state and the report tell the same figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pydantic import TypeAdapter

from symbio_core.compute.failover import Failure
from symbio_core.compute.ledger import Ledger
from symbio_core.errors import SwapLost
from symbio_core.runner.run import Run
from symbio_core.storage import ObjectStore

_FAILURES = TypeAdapter(tuple[Failure, ...])
TRIES = 5


def read_ledger(store: ObjectStore, run_id: str) -> Ledger:
    """Return what a run's machines have cost; an empty ledger before the first."""
    found = store.read(_key(run_id, "ledger"))
    return Ledger.model_validate_json(found.data) if found else Ledger()


def write_ledger(store: ObjectStore, run_id: str, ledger: Ledger, before: Ledger) -> Ledger:
    """Keep what changed in a run's ledger, and leave alone what others have entered meanwhile.

    Args:
        store: where the run lives.
        run_id: its name.
        ledger: as it is to be.
        before: as this process last read or kept it.

    Returns:
        What is kept: the entries of this process and those of others.

    Raises:
        SwapLost: another parent orders machines at the same time.
    """
    key = _key(run_id, "ledger")
    fresh = {one.name for one in ledger.attempts} - {one.name for one in before.attempts}

    def changed(data: bytes | None) -> bytes:
        there = Ledger.model_validate_json(data) if data else Ledger()
        for one in there.attempts:
            if one.name in fresh and one not in ledger.attempts:
                raise SwapLost(
                    f"{store.where(key)} has a machine {one.name} already; see that one parent "
                    "keeps this run"
                )
        kept = there.with_changes(before, ledger)
        return kept.model_dump_json(indent=1).encode() + b"\n"

    return Ledger.model_validate_json(_write(store, key, changed))


def read_failures(store: ObjectStore, run_id: str) -> tuple[Failure, ...]:
    """Return what was refused or lost since the run last made progress, oldest first."""
    found = store.read(_key(run_id, "failures"))
    return _FAILURES.validate_json(found.data) if found else ()


def write_failures(store: ObjectStore, run_id: str, failures: Sequence[Failure]) -> None:
    """Keep what was refused or lost.

    Raises:
        SwapLost: another parent writes it at the same time.
    """
    data = _FAILURES.dump_json(tuple(failures), indent=1) + b"\n"
    _write(store, _key(run_id, "failures"), lambda _before: data)


def enter_costs(run: Run, ledger: Ledger) -> None:
    """Write into the journal what has changed in the ledger since the journal last told it.

    Raises:
        LeaseLost: another parent keeps the run by now, and no machine should be ordered for it.
    """
    known = {one.name: one for one in run.state.machines}
    now = time.time()
    fresh = []
    for attempt in ledger.attempts:
        before = known.get(attempt.name)
        cost = attempt.cost(now)
        # Between two changes only the clock moves on, and that is no news.
        same = before is not None and (before.ended, before.is_over) == (cost.ended, cost.is_over)
        if not same or (cost.is_over and before != cost):
            fresh.append(cost)
    if not fresh:
        return
    with run.writing():
        for cost in fresh:
            run._note("machine", machine=cost)


def _write(store: ObjectStore, key: str, change: Callable[[bytes | None], bytes]) -> bytes:
    for _try in range(TRIES):
        found = store.read(key)
        data = change(found.data if found else None)
        try:
            store.swap(key, data, found.version if found else None)
        except SwapLost:
            continue
        return data
    raise SwapLost(f"{store.where(key)} changes all the time; see that one parent keeps this run")


def _key(run_id: str, name: str) -> str:
    return f"runs/{run_id}/machines/{name}.json"
