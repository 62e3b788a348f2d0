"""What all tasks share: the open runs of this process, work in a thread, which errors to retry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio
from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from symbio_core import progress

if TYPE_CHECKING:
    from symbio_core.config import RunConfig
    from symbio_core.runner import Run

P = ParamSpec("P")
R = TypeVar("R")

_open_runs: dict[tuple[str, str], Run] = {}
# One thread for all: torch keeps its number of threads by thread, and results depend on it.
_core_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="symbio-core")


def is_retryable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Let the error itself say whether another try makes sense."""
    return bool(getattr(state.data, "retryable", False))


def run_at(root: str, run_id: str) -> Run:
    """Return the run of that name, reopened from its journal unless this process holds it open.

    Raises:
        UnknownRun: no run of that name lives under ``root``.
    """
    from symbio_core.runner import reopen

    if (root, run_id) not in _open_runs:
        _open_runs[root, run_id] = reopen(root, run_id)
    return _open_runs[root, run_id]


def claimed(config: RunConfig, run_id: str | None) -> Run:
    """Return the run called ``run_id``, begun if there is none yet, for this flow run alone.

    Raises:
        LeaseHeld: another process lives it, or another flow run of this one.
        SymbioError: what the person has to mend before the run can begin.
    """
    from symbio_core.runner import begin, new_name

    run = begin(config, run_id or new_name(config))
    run.hold()
    return run


def keep_open(root: str, run: Run) -> None:
    """Let the tasks of this process work on ``run`` until it is closed."""
    _open_runs[root, run.run_id] = run


def close(root: str, run_id: str) -> None:
    """Let go of an open run: whoever needs it next, here or elsewhere, reads its journal again."""
    run = _open_runs.pop((root, run_id), None)
    if run is not None:
        run.release()


@contextmanager
def hold(root: str, run: Run) -> Iterator[None]:
    """Let the tasks of this process work on ``run`` while the body runs."""
    keep_open(root, run)
    try:
        yield
    finally:
        close(root, run.run_id)


async def in_thread(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do ``work`` in the core's thread, so that heartbeats and logs go on while it lasts.

    A thread cannot be cancelled. So when this call is, the core is asked to save and stop, and the
    cancellation goes on once it has.
    """
    here = copy_context()
    thread = asyncio.get_running_loop().run_in_executor(
        _core_thread, partial(here.run, work, *args, **kwargs)
    )
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        progress.request_stop()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([thread])
        progress.clear_stop()
        raise
