"""A phase on another machine: the parent starts it and keeps watch, the phase's process sits.

What is true lies in the storage root. Prefect carries the start to a worker and its word that a
process has ended is taken as a hint: a phase counts as lost when its pulse in the storage stops.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.deployments import arun_deployment
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Crashed

from symbio_core import progress
from symbio_core.errors import Interrupted, NoCapacity, PhaseLost, PriceCapReached
from symbio_core.progress import Progress
from symbio_core.records import PhasePlan
from symbio_core.storage.post import Post, Pulse, Turn
from tasks.machines import machine_of
from tasks.showing import progress_shown
from tasks.working import hold, in_thread, is_retryable, run_at

DEPLOYMENT = "gpu"
"""Name of the phases' deployments on the pool symbio-gpu."""
START_S = 60.0
"""What a process may take, beyond the usual silence, from its start to its first pulse (s)."""
SAVE_S = 20.0
"""How long a cancelled parent waits for its phase to save (s); a worker kills it after 30."""
UNTAKEN_S = 120.0
"""A machine that is up and whose worker takes no phase for so long is given up (s)."""
REMIND_S = 60.0
"""A start that no worker takes is spoken of this often (s)."""
UNTAKEN = (
    "it is up and takes no phase: its worker hangs, does not reach the Prefect server or is not "
    "let in, or another run holds the only place of the pool symbio-gpu"
)
PHASE_PID = "SYMBIO_PHASE_PID"
"""Environment variable naming the file in which a phase's process leaves its number."""


def runs_elsewhere(root: str, run_id: str) -> bool:
    """Say whether the run's settings send its phases to another machine."""
    return run_at(root, run_id).config.compute.kind != "local"


def _worth_another_try(of: Any, task_run: TaskRun, state: State[Any]) -> bool:
    # All of it is idempotent, so a server that could not be reached is simply asked again.
    return is_retryable(of, task_run, state) or isinstance(
        state.data, httpx.HTTPError | PrefectException
    )


@task(
    name="phase elsewhere",
    task_run_name="{plan.phase} elsewhere",
    retries=3,
    retry_delay_seconds=5,
    retry_jitter_factor=0.5,
    retry_condition_fn=_worth_another_try,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def live_elsewhere(root: str, run_id: str, plan: PhasePlan) -> None:
    """Have the phase trained by a worker, start it again if it is lost, enter what it found."""
    async with progress_shown(run_id):
        await Vigil(root, run_id, plan).keep()


class Vigil:
    """The parent's watch over one attempt that runs elsewhere."""

    def __init__(self, root: str, run_id: str, plan: PhasePlan) -> None:
        self.run = run_at(root, run_id)
        self.root = root if "://" in root else str(Path(root).resolve())
        self.run_id = run_id
        self.plan = plan
        self.settings = self.run.config.compute.elsewhere
        self.post = Post(self.run.store, plan)
        self.machine = machine_of(root, run_id)
        self.log = get_run_logger()

    async def keep(self) -> None:
        """Go on until the whole result is in the journal.

        Raises:
            PhaseLost: it failed, or was lost too often without getting further.
            Interrupted: somebody asked the run to stop; the phase has saved.
        """
        try:
            while not await self._entered():
                await self._one_turn()
        except (NoCapacity, PriceCapReached) as end:
            # Its machine goes, or is gone, and nobody else will tell Prefect.
            await self._let_go(Crashed(message=f"given up: {end}"))
            raise
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._let_save()
            raise

    async def _one_turn(self) -> None:
        if self.machine is not None:
            await asyncio.to_thread(self.machine.up)
        turn = await self._turn()
        flow_run = await self._start(turn)
        why = await self._watch(turn, flow_run)
        if why is not None:
            await self._settle(flow_run, why)
            await self._next(turn, why)

    async def _let_save(self) -> None:
        """Ask the phase to save and stop, and wait for it as long as Prefect waits for us."""
        turn = await asyncio.to_thread(self.post.turn)
        if turn is None:
            return
        await self._wish(turn, stop=True)
        await self._let_go(Cancelled(message=await self._saved(turn)))

    async def _saved(self, turn: Turn) -> str:
        """Wait until the phase has ended, or for as long as can be, and say which of them it is."""
        until = time.monotonic() + SAVE_S
        while time.monotonic() < until:
            pulse = await asyncio.to_thread(self.post.pulse)
            if pulse is None or pulse.turn != turn.number:
                return "stopped before it began"
            if pulse.is_over:
                return f"stopped on request: {pulse.state}"
            await asyncio.sleep(self.settings.poll_s)
        return f"had not saved {SAVE_S:g} s after it was asked to"

    async def _let_go(self, state: State[Any]) -> None:
        """Close what was started for the turn: left open, it holds the pool's place for ever."""
        turn = await asyncio.to_thread(self.post.turn)
        if turn is None:
            return
        started = FlowRunFilterIdempotencyKey(any_=[turn.key])
        try:
            async with get_client() as client:
                found = await client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(idempotency_key=started)
                )
            for flow_run in found:
                await self._close(flow_run, state)
        except (httpx.HTTPError, PrefectException) as error:
            # What ends the phase is the news; this only follows from it.
            self.log.warning(f"{self.plan.phase} stays open on the Prefect server: {error}")

    async def _entered(self) -> bool:
        lines = await asyncio.to_thread(self.post.lines)
        return await in_thread(self.run.enter, self.plan, lines)

    async def _turn(self) -> Turn:
        turn = await asyncio.to_thread(self.post.turn)
        if turn is None:
            turn = Turn(number=1)
            await asyncio.to_thread(self.post.give_turn, None, turn)
        return turn

    async def _start(self, turn: Turn) -> FlowRun:
        # The same key finds the same flow run again, so a parent that comes back starts no second.
        return await arun_deployment(
            f"{self.plan.phase}/{DEPLOYMENT}",
            parameters={
                "root": self.root,
                "run_id": self.run_id,
                "plan": self.plan.model_dump(mode="json"),
                "turn": turn.number,
            },
            timeout=0,
            idempotency_key=turn.key,
            tags=["symbio", self.run_id],
        )

    async def _watch(self, turn: Turn, flow_run: FlowRun) -> str | None:
        """Return why the turn is over, or None when the phase is done."""
        began = heard = reminded = time.monotonic()
        last: Pulse | None = None
        under_way_since: float | None = None
        ready_since: float | None = None
        while True:
            now = time.monotonic()
            pulse = await asyncio.to_thread(self.post.pulse)
            if pulse is not None and pulse.turn == turn.number and pulse != last:
                last, heard = pulse, now
                self._show(pulse)
                if self.machine is not None and pulse.step > turn.reached:
                    # Before any loss of this turn is counted, which would be forgotten as well.
                    await asyncio.to_thread(self.machine.progressed)
            if last is not None and last.is_over:
                return await self._last_word(turn, last)
            if progress.stop_requested() and not turn.stop:
                turn = await self._wish(turn, stop=True)
            if self.machine is not None:
                turn = await self._mind_the_money(turn)
                if wrong := await asyncio.to_thread(self.machine.wrong):
                    return await self._without_machine(turn, wrong)
            state = await self._state(flow_run)
            waiting = state is None or state.is_scheduled()
            if turn.stop and last is None and waiting:
                await self._close(flow_run, Cancelled(message="stopped before it began"))
                raise Interrupted("stopped on request")
            under_way_since = None if waiting else (under_way_since or now)
            # Only what the server says counts against the machine, not that it says nothing.
            is_ready = state is not None and waiting and self._is_up()
            ready_since = (ready_since or now) if is_ready else None
            if last is not None:
                limit = self.settings.lost_after_s
                if state is not None and state.is_final():
                    limit = min(limit, 3 * self.settings.beat_s)
                if now - heard > limit:
                    return f"no sign of life for {now - heard:.0f} s"
            elif state is not None and state.is_final():
                return f"it ended before it began: {state.name} {state.message or ''}".strip()
            elif under_way_since is not None:
                if now - under_way_since > self.settings.lost_after_s + START_S:
                    return f"started {now - under_way_since:.0f} s ago and never heard of"
            elif ready_since is not None and now - ready_since > UNTAKEN_S:
                return await self._without_machine(turn, UNTAKEN)
            elif now - reminded > REMIND_S:
                reminded = now
                self._remind(now - began)
            await asyncio.sleep(self.settings.poll_s)

    def _is_up(self) -> bool:
        return self.machine is not None and self.machine.has_spoken

    def _remind(self, waited_s: float) -> None:
        start = "; start one on the GPU box: prefect worker start --pool symbio-gpu"
        where = start if self.machine is None else " of its machine"
        self.log.warning(f"{self.plan.phase} has waited {waited_s:.0f} s for a worker{where}")

    async def _last_word(self, turn: Turn, pulse: Pulse) -> str | None:
        why = self._verdict(pulse)
        if self.machine is None or pulse.state != "saved":
            return why
        # Nobody here asked for that: its machine is about to end, and says so only after it.
        until = time.monotonic() + self.settings.lost_after_s
        while time.monotonic() < until:
            if wrong := await asyncio.to_thread(self.machine.wrong):
                return await self._without_machine(turn, wrong)
            await asyncio.sleep(self.settings.poll_s)
        return why

    def _verdict(self, pulse: Pulse) -> str | None:
        if pulse.state == "done":
            return None
        if progress.stop_requested() and pulse.state == "saved":
            raise Interrupted("stopped on request")
        if pulse.state == "failed" and not pulse.retryable:
            raise PhaseLost(f"{self.plan.phase} failed on {pulse.host}: {pulse.message}")
        return f"{pulse.state}: {pulse.message}"

    async def _wish(self, turn: Turn, **wishes: Any) -> Turn:
        wish = turn.model_copy(update=wishes)
        await asyncio.to_thread(self.post.give_turn, turn, wish)
        return wish

    async def _mind_the_money(self, turn: Turn) -> Turn:
        assert self.machine is not None
        if self.machine.money_is_gone():
            raise PriceCapReached("the cap on dollars is reached; what was saved is whole")
        if self.machine.money_ends() and not turn.end:
            self.log.warning("the cap on dollars is near: the phase comes to its end")
            return await self._wish(turn, end="the cap on dollars was reached")
        return turn

    async def _without_machine(self, turn: Turn, wrong: str) -> str | None:
        assert self.machine is not None
        self.machine.give_up(wrong)
        # Its last act may have been to finish the phase.
        pulse = await asyncio.to_thread(self.post.pulse)
        done = pulse is not None and pulse.turn == turn.number and pulse.state == "done"
        return None if done else f"its machine is lost: {wrong}"

    async def _state(self, flow_run: FlowRun) -> State[Any] | None:
        try:
            async with get_client() as client:
                return (await client.read_flow_run(flow_run.id)).state
        except (httpx.HTTPError, PrefectException) as error:
            # The storage says how the phase is; the server is asked again at the next look.
            self.log.debug(f"the Prefect server did not answer: {error}")
            return None

    async def _settle(self, flow_run: FlowRun, why: str) -> None:
        # A run whose process is gone stays Running for ever and holds the pool's place.
        await self._close(flow_run, Crashed(message=f"given up: {why}"))

    async def _close(self, flow_run: FlowRun, state: State[Any]) -> None:
        async with get_client() as client:
            before = (await client.read_flow_run(flow_run.id)).state
            if before is None or not before.is_final():
                await client.set_flow_run_state(flow_run.id, state, force=True)

    async def _next(self, turn: Turn, why: str) -> None:
        pulse = await asyncio.to_thread(self.post.pulse)
        step = pulse.step if pulse is not None else 0
        fruitless = 0 if step > turn.reached else turn.fruitless + 1
        if fruitless >= self.settings.max_fruitless:
            raise PhaseLost(
                f"{self.plan.phase} was started {fruitless} times without getting further ({why}); "
                "what it saved is whole: see the worker's log, then resume"
            )
        pause = self.settings.pause_s * 2**fruitless
        self.log.warning(f"{self.plan.phase} is started again in {pause:g} s: {why}")
        following = Turn(
            number=turn.number + 1,
            fruitless=fruitless,
            reached=max(turn.reached, step),
            why=why,
        )
        await asyncio.to_thread(self.post.give_turn, await self._turn(), following)
        await asyncio.sleep(pause)

    def _show(self, pulse: Pulse) -> None:
        progress.publish(
            Progress(
                run_id=self.run_id,
                phase=self.plan.phase,
                attempt=self.plan.attempt,
                activity=pulse.activity,
                step=pulse.step,
                steps=self.run.config.budget.steps,
                loss=pulse.loss,
                tokens_per_s=pulse.tokens_per_s,
                eta_s=pulse.eta_s,
                formula=pulse.formula,
            )
        )


@asynccontextmanager
async def sitting(root: str, run_id: str, plan: PhasePlan, turn: int) -> AsyncIterator[None]:
    """Hold a turn at the phase in this process, for a parent that waits elsewhere.

    SIGTERM saves and stops: that is how a worker, or the watchdog of a machine that is about to be
    taken back, ends it.
    """
    from symbio_core.runner.elsewhere import sit

    held = sit(root, run_id, plan, turn)
    run = await in_thread(held.__enter__)
    error: BaseException | None = None
    with hold(root, run), _saved_on_sigterm(), _known_by_number():
        try:
            yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            kind = type(error) if error is not None else None
            trace = error.__traceback__ if error is not None else None
            await in_thread(held.__exit__, kind, error, trace)


@contextmanager
def _saved_on_sigterm() -> Iterator[None]:
    # Only the main thread hears signals; elsewhere Prefect's own cancellation has to do.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: progress.request_stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _known_by_number() -> Iterator[None]:
    # The watchdog of a machine looks there for whom to ask to save.
    file = os.environ.get(PHASE_PID)
    if file is None:
        yield
        return
    Path(file).write_text(str(os.getpid()), encoding="ascii")
    try:
        yield
    finally:
        Path(file).unlink(missing_ok=True)
