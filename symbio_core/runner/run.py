"""One run, move by move: plan, train, write, judge, decide, finish.

Every move is idempotent: the journal says what is already done, and a move that is done hands back
what the journal holds. So any process that has the storage root and the run's id can go on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from symbio_core import gates, lifecycle, progress
from symbio_core.config import PHASES, RunConfig, checked
from symbio_core.errors import CheckpointDamaged, ConfigError, Damaged, Overtime, StorageError
from symbio_core.records import (
    Attempt,
    Battery,
    CheckpointRef,
    Confirmation,
    Decision,
    Generation,
    Outcome,
    PhasePlan,
    Record,
    RunState,
    Verdict,
)
from symbio_core.report import FinalReport
from symbio_core.runner import changing, exported, finishing
from symbio_core.runner.attempt import PhaseResult
from symbio_core.runner.generation import Gather, gather
from symbio_core.runner.pace import Pace
from symbio_core.runner.phase import PhaseRun
from symbio_core.runner.places import work_folder
from symbio_core.runner.vault import Snapshot, Vault, checkpoint_bytes
from symbio_core.runner.workbench import Workbench
from symbio_core.runner.writing import write_battery
from symbio_core.search import initial_state
from symbio_core.storage import FolderStore, RunStore
from symbio_core.storage.canonical import pretty_bytes

TOKENIZER = exported.TOKENIZER
FIRST_FUNCTION = "gelu(x)"
"""Abiogenesis is the baseline: GELU."""

P = ParamSpec("P")
R = TypeVar("R")


def move(
    method: Callable[Concatenate[Run, P], R],
) -> Callable[Concatenate[Run, P], R]:
    """Mark a move that writes: it is made under the run's lease, or not at all."""

    @wraps(method)
    def made(run: Run, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with run.writing():
            return method(run, *args, **kwargs)

    return made


class Run:
    """A run and the moves it is made of."""

    def __init__(self, run_id: str, config: RunConfig, store: RunStore) -> None:
        self.run_id = run_id
        self.store = store
        self._events: list[dict[str, Any]] = store.journal.read()
        self.config, self._folded = _understood(run_id, config, self._events)
        self._is_unsure = False
        """Whether a line may have reached the journal though its writing failed."""

    # --- what is known

    @property
    def state(self) -> RunState:
        """Where the run stands."""
        return self._folded.state

    @property
    def events(self) -> tuple[dict[str, Any], ...]:
        """The journal, oldest first."""
        return tuple(self._events)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt that has been decided."""
        return self._folded.attempts

    @property
    def confirmation(self) -> Confirmation | None:
        """The final's result, once it was held."""
        found = [e["confirmation"] for e in self._events if e["event"] == "confirmed"]
        return Confirmation.model_validate(found[-1]) if found else None

    @property
    def confirmed(self) -> CheckpointRef | None:
        """The line with the function that the final chose, as that phase left it."""
        found = [a.outcome.end for a in self.attempts if a.outcome.confirm_steps > 0]
        return found[-1] if found else None

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Every generation of the attempts decided so far."""
        return tuple(g for attempt in self.attempts for g in attempt.outcome.generations)

    @cached_property
    def bench(self) -> Workbench:
        """The tools of measuring; opened when the first move needs them."""
        return self.new_bench()

    def new_bench(self) -> Workbench:
        """Open the tools of measuring; a run that starts from another keeps its tokenizer.

        Raises:
            CorpusError: the corpus will not do.
            NoDevice: CUDA was asked for and is missing.
        """
        text = None
        if self.config.start_from is not None:
            # Its own copy first: the elder may be gone by the time that this run goes on.
            elder = self.store.sibling(self.config.start_from)
            text = _tokenizer_of(self.store) or elder.read_file(TOKENIZER).decode()
        return Workbench(self.config, cache_of(self.config), text)

    def write_tokenizer(self) -> None:
        """Write the tokenizer into the run, so that it needs no corpus to be read by others."""
        self.store.write_file(TOKENIZER, self.bench.data.tokenizer.to_json().encode())

    @cached_property
    def vault(self) -> Vault:
        """Checkpoints of this run."""
        return Vault(self.store, self.bench)

    @property
    def started(self) -> str:
        """When the run began (ISO 8601, UTC)."""
        return str(self._events[0]["at"]) if self._events else ""

    @property
    def ended(self) -> str:
        """When the run last wrote into its journal (ISO 8601, UTC)."""
        return str(self._events[-1]["at"]) if self._events else ""

    @property
    def is_open(self) -> bool:
        """Whether the checkpoint that the first phase starts from is written."""
        return any(event["event"] == "started" for event in self._events)

    @property
    def is_finished(self) -> bool:
        """Whether the report of the whole run is written."""
        return any(event["event"] == "finished" for event in self._events)

    # --- who may write

    def claim(self, *, take_over: bool = False) -> None:
        """Become the only process that writes into this run, unless this one is already.

        Args:
            take_over: also from a process that lives; what that one writes afterwards is refused.

        Raises:
            LeaseHeld: another process works on the run; the message says which.
            LeaseLost: this one did, and another has taken it over.
            Damaged: the journal is gone, so that the run would begin anew.
            DiskTooFull: the checkpoints that are still to come would not fit.
        """
        held = self.store.lease
        if held is not None and not held.is_released:
            held.raise_if_lost()
            if self._is_unsure:
                self._catch_up(self.store.journal.claim(held))
            return
        if not self._events:
            self.store.refuse_if_journal_is_gone()
        if not self.is_finished:
            self._refuse_full_disk()
        events = self.store.claim(ttl_s=self.config.storage.lease_s, take_over=take_over)
        self._catch_up(events)
        self._mend()

    def _refuse_full_disk(self) -> None:
        store, home = self.store.store, self.store.checkpoints.home
        if isinstance(store, FolderStore):  # A bucket has room, and each look costs a request.
            held = sum(store.size(key) or 0 for key in store.keys(f"{home}/"))
            store.check_writable(max(0, checkpoint_bytes(self.config) - held))

    def _catch_up(self, events: list[dict[str, Any]]) -> None:
        if events != self._events:
            self._events = events
            self.config, self._folded = _understood(self.run_id, self.config, events)
        self._is_unsure = False

    def hold(self) -> None:
        """Claim the run, and until `release` refuse others of this very process as well.

        A run that is only claimed may be taken over by them between two moves.

        Raises:
            LeaseHeld: another works on the run; the message says which process.
        """
        self.claim()
        if self.store.lease is not None:
            self.store.lease.keep()

    def release(self) -> None:
        """Let go of the run, so that another process may go on with it at once."""
        self.store.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run while the body writes; a run taken over by another ends at its next step.

        Raises:
            LeaseHeld: another process works on the run.
            LeaseLost: another process has taken it over.
        """
        self.claim()
        lease = self.store.lease
        if lease is None:
            yield
            return
        unsubscribe = progress.subscribe(lambda report: lease.raise_if_lost())
        try:
            with lease.at_work(), self.saving():
                yield
        finally:
            unsubscribe()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """See at the end of the body, however it ends, that what it saved is on disk."""
        try:
            yield
        finally:
            self._join_saves()

    def _join_saves(self) -> None:
        vault = self.__dict__.get("vault")  # Not made for this: that takes a corpus.
        if vault is not None:
            vault.join()

    # --- the moves

    @move
    def open(self, formula: str = FIRST_FUNCTION) -> None:
        """Write the journal's first lines and the checkpoint that the first phase starts from.

        Args:
            formula: function that fresh weights begin with.
        """
        if not self._events:
            self._note("opened", config=self.config)
        self.write_tokenizer()
        elder = self._elder
        if elder is None:
            member = self.bench.fresh_member(formula, "line")
        else:
            assert elder.state.best is not None, "an elder without a model is refused before"
            member = Vault(elder.store, self.bench).load(elder.state.best.id).member
        start = self.vault.save_start(member, initial_state(member.formula))
        self._note("started", checkpoint=start)

    @move
    def change(self, asked: Mapping[str, Any]) -> None:
        """Go on under other settings, where no decision rests on them, and note what changed.

        Args:
            asked: new values by dotted key.

        Raises:
            ConfigError: the run is finished, or a setting has to stay as it is.
        """
        changes = changing.differences(self.config, asked)
        if changes and self.state.finished is not None:
            raise ConfigError(
                f"run '{self.run_id}' is finished, so {next(iter(changes))} changes nothing any "
                f"more; begin another from its model by `symbio run --start-from {self.run_id}`"
            )
        if changes:
            self._note(changing.EVENT, changes=changes)
            self.config = changing.as_changed(self.config, self._events)

    @move
    def plan_next(self) -> PhasePlan | None:
        """Return what to run next, or None when the run is over."""
        if not self.is_open:
            self.open()  # the process that began it ended between its first two writes
        pending = self._folded.pending
        if pending is not None:
            return pending.plan
        plan = lifecycle.plan(self.config, self.state)
        if plan is None:
            return None
        if plan.start is None:
            plan = plan.model_copy(update={"start": self._first.id})
        self._note("planned", plan=plan)
        return plan

    @move
    def train(self, plan: PhasePlan, *, gather: Gather = gather) -> Outcome:
        """Run the phase, from its last step checkpoint if there is one; return what it found.

        Args:
            plan: the attempt under way.
            gather: brings the members of its generations together.
        """
        done = self._pending(plan).outcome
        if done is not None:
            return done
        result = self._in_time(plan, gather)
        # At once: whoever died between the two would tell the first a second time.
        lines = [_line("trained", outcome=result.outcome)]
        if result.confirmation is not None:
            lines.insert(0, _line("confirmed", confirmation=result.confirmation))
        self._enter(*lines)
        return result.outcome

    @move
    def write_battery(self, plan: PhasePlan) -> Battery:
        """Let the model write: every prompt at every temperature, scored against human text."""
        pending = self._pending(plan)
        if pending.battery is not None:
            return pending.battery
        assert pending.outcome is not None, "a phase is trained before it is judged"
        battery = write_battery(self.bench, self.vault.load_model(pending.outcome.end.id))
        self._note("written", battery=battery)
        return battery

    @move
    def enter(self, plan: PhasePlan, lines: Sequence[dict[str, Any]]) -> bool:
        """Enter what a phase that ran elsewhere has found; say whether that is all of it.

        All lines go into the journal at once, so a process that dies here has entered all or none.

        Args:
            plan: the attempt under way.
            lines: what its process would have written into the journal.
        """
        pending = self._pending(plan)
        if pending.outcome is None or pending.battery is None:
            found = self._folded
            for line in lines:
                found = lifecycle.step(self.config, found, line)
            there = found.pending
            if there is None or there.outcome is None or there.battery is None:
                return False
            self._enter(*lines)
        return True

    def judge_battery(self, plan: PhasePlan) -> tuple[Verdict, ...]:
        """Ask whether the phase made the model better, and whether it broke something."""
        pending = self._pending(plan)
        assert pending.outcome is not None
        assert pending.battery is not None
        best, start, outcome = self.state.best_text, plan.start, pending.outcome
        if self._begins_afresh(plan):
            # What an earlier phase's weights could do is no measure for weights that knew nothing.
            best = start = None
            nothing = (math.log(self.bench.n_vocab),) * len(outcome.end.val_nats)
            begun = outcome.start.model_copy(update={"val_nats": nothing})
            outcome = outcome.model_copy(update={"start": begun})
        return gates.judge_battery(
            outcome,
            before=self._battery_of(start),
            after=pending.battery,
            best_quality=best.quality if best else None,
            best_battery=self._battery_of(best.id) if best else None,
            gates=self.config.gates,
            seed=self.config.seed,
        )

    def judge_overfitting(self, plan: PhasePlan) -> tuple[Verdict, ...]:
        """Ask whether the model or the search has begun to learn by heart."""
        outcome = self._pending(plan).outcome
        assert outcome is not None
        return gates.judge_overfitting(outcome, self.generations, self.config.gates)

    def judge_plateau(self, plan: PhasePlan) -> tuple[Verdict, ...]:
        """Ask whether the search stands still, and which way out there is."""
        outcome = self._pending(plan).outcome
        assert outcome is not None
        earlier = lifecycle.line_points(self.attempts, plan.start)
        return gates.judge_plateau(outcome, self.generations, self.config.gates, earlier)

    @move
    def decide(
        self,
        plan: PhasePlan,
        verdicts: tuple[Verdict, ...],
        choice: Literal["continue", "stop", "repeat"] | None = None,
    ) -> Decision:
        """Decide what follows, write it into the journal, and go there."""
        pending = self._pending(plan)
        assert pending.outcome is not None
        assert pending.battery is not None
        decision = lifecycle.decide(
            self.config, self.state, plan, pending.outcome, verdicts, choice
        )
        if decision.kind == "ask":
            return decision
        self._note("decided", verdicts=verdicts, decision=decision, quality=pending.battery.quality)
        self._retain()
        return decision

    @move
    def finish(self, reason: str | None = None) -> FinalReport:
        """Write the report and the model to take away; say so in the journal.

        Args:
            reason: what ended the run, where that was not its own decision.
        """
        if not self.is_finished:
            why = reason or self.state.finished or "all phases are done"
            self._note("finished", reason=why)
        self._retain()  # once more: the last decision may have been all that its process did
        report = finishing.finish(self)
        self.release()
        return report

    def report(self) -> FinalReport:
        """Write the report anew from the journal, also of a run that is not finished."""
        return finishing.write_report(self, finishing.ship(self))

    # --- what the moves are made of

    def _in_time(self, plan: PhasePlan, gather: Gather) -> PhaseResult:
        """Run the phase, again from its last checkpoint whenever it takes far too long.

        Each time it may take longer: a machine that is merely slow gets there all the same.
        """
        patience = 1.0
        while True:
            try:
                return self._phase_run(plan, gather, patience).run()
            except Overtime as overtime:
                self._note("noted", message=str(overtime))
                patience *= self.config.gates.overtime

    def _phase_run(self, plan: PhasePlan, gather: Gather, patience: float) -> PhaseRun:
        assert plan.start is not None
        snapshot = self.vault.load_step(plan, lambda damage: self._note("noted", message=damage))
        before = float(snapshot.progress["seconds"]) if snapshot and snapshot.progress else 0.0
        pace = Pace(
            self.config,
            self.run_id,
            self.bench.tokens_per_step,
            run_seconds=self._seconds_before,
            phase_seconds=before,
            predicted_s=self._predicted_s(plan),
            patience=patience,
        )
        return PhaseRun(
            self.bench,
            self.vault,
            plan,
            snapshot or self._opening(plan),
            pace,
            start=self._reference(plan.start),
            spent_before=self.state.steps_spent,
            settled=self.confirmation if self.confirmed is not None else None,
            gather=gather,
            history=self.generations,
            earlier=lifecycle.line_points(self.attempts, plan.start),
        )

    def _mend(self) -> None:
        """Write anew what the journal says too, where it is damaged."""
        if not self._events:
            return
        self.store.mend_config()
        try:
            there = self.store.read_state()
        except Damaged:
            there = None
        if there != self.plain_state:
            self.store.write_state(self.state.model_dump(mode="json"))

    @property
    def plain_state(self) -> dict[str, Any]:
        """The state as it comes back from its file."""
        content: dict[str, Any] = json.loads(pretty_bytes(self.state.model_dump(mode="json")))
        return content

    def _whole_start(self, plan: PhasePlan) -> Snapshot:
        assert plan.start is not None
        try:
            return self.vault.load(plan.start)
        except CheckpointDamaged as error:
            newest = self.store.checkpoints.newest_whole().manifest
            if newest is None:
                where = self.store.store.where(self.store.checkpoints.home)
                raise CheckpointDamaged(
                    f"no checkpoint of run '{self.run_id}' is whole any more; put back a copy of "
                    f"{where}, or start a new run; `symbio fsck {self.run_id}` lists the damage"
                ) from error
            self._note(
                "noted",
                message=f"{error}; {plan.phase} starts from {newest.id} instead, the newest whole",
            )
            return self.vault.load(newest.id)

    def _opening(self, plan: PhasePlan) -> Snapshot:
        loaded = self._whole_start(plan)
        if not self._begins_afresh(plan):
            return loaded
        fresh = self.bench.fresh_member(loaded.member.formula, plan.phase, plan.attempt)
        return Snapshot(fresh, loaded.search)

    def _begins_afresh(self, plan: PhasePlan) -> bool:
        return self.config.inherit == "knowledge" and plan.phase != PHASES[0]

    @property
    def _seconds_before(self) -> float:
        return sum(a.outcome.seconds + a.battery.seconds for a in self.attempts)

    def _predicted_s(self, plan: PhasePlan) -> float | None:
        steps = sum(a.outcome.steps for a in self.attempts)
        seconds = sum(a.outcome.seconds for a in self.attempts)
        return plan.steps * seconds / steps if steps else None

    @cached_property
    def _elder(self) -> Run | None:
        if self.config.start_from is None:
            return None
        store = self.store.sibling(self.config.start_from)
        config = checked(RunConfig, store.read_config())
        return Run(self.config.start_from, config, store)

    @property
    def _first(self) -> CheckpointRef:
        started = next(event for event in self._events if event["event"] == "started")
        return CheckpointRef.model_validate(started["checkpoint"])

    def _reference(self, checkpoint: str) -> CheckpointRef:
        known = self.state.known.get(checkpoint)
        return known if known is not None else self._first

    def _battery_of(self, checkpoint: str | None) -> Battery | None:
        for attempt in reversed(self.attempts):
            if attempt.outcome.end.id == checkpoint:
                return attempt.battery
        return None

    @property
    def under_way(self) -> PhasePlan | None:
        """The attempt that is planned and not yet decided."""
        return self._folded.pending.plan if self._folded.pending else None

    def _pending(self, plan: PhasePlan) -> lifecycle.Pending:
        pending = self._folded.pending
        assert pending is not None, f"{plan.phase} is not under way"
        return pending

    def _note(self, event: str, **content: Any) -> None:
        self._enter(_line(event, **content))

    def _enter(self, *lines: dict[str, Any]) -> None:
        self._join_saves()  # No line names a checkpoint that is not on disk.
        try:
            self.store.journal.append(lines)
        except StorageError:
            self._is_unsure = True
            raise
        self._fold_in(*lines)
        self.store.write_state(self.state.model_dump(mode="json"))

    def _fold_in(self, *lines: dict[str, Any]) -> None:
        for line in lines:
            self._events.append(line)
            self._folded = lifecycle.step(self.config, self._folded, line)

    def referenced(self) -> dict[str, tuple[str, ...]]:
        """Return every checkpoint that is still needed, and what for."""
        state = self.state
        uses = [(ref.id, f"end of {ref.phase}") for ref in state.known.values()]
        uses += [(ref.id, "dormant") for ref in state.dormant]
        uses += [(self.confirmed.id, "confirmed")] if self.confirmed else []
        uses += [(self._first.id, "start")] if self.is_open else []
        uses += [(state.best.id, "best")] if state.best else []
        uses += [(state.best_text.id, "best text")] if state.best_text else []
        uses += [(state.line, "line")] if state.line else []
        found: dict[str, tuple[str, ...]] = {}
        for checkpoint, use in uses:
            found[checkpoint] = (*found.get(checkpoint, ()), use)
        return found

    def _retain(self) -> None:
        # What is set aside names checkpoints too, some of them where it is damaged.
        if self.store.journal.aside():
            return
        self.store.checkpoints.retain(set(self.referenced()))


def _tokenizer_of(store: RunStore) -> str | None:
    """Return a run's own copy of its tokenizer; None where there is none, or a damaged one."""
    try:
        return store.read_file(TOKENIZER).decode()
    except (Damaged, UnicodeDecodeError):
        return None


def cache_of(config: RunConfig) -> Path:
    """Return the folder of token files, shared by all runs of a storage root."""
    return work_folder(config.storage.root) / "corpora"


def _understood(
    run_id: str, config: RunConfig, events: Sequence[dict[str, Any]]
) -> tuple[RunConfig, lifecycle.Folded]:
    """Return settings as changed since, and the fold of a journal that the moves can rely on."""
    try:
        for event in events:
            if not isinstance(event["event"], str) or not isinstance(event["at"], str):
                raise ValueError("an event without name or time")
            if event["event"] == "started":
                CheckpointRef.model_validate(event["checkpoint"])
            if event["event"] == "confirmed":
                Confirmation.model_validate(event["confirmation"])
        config = changing.as_changed(config, events)
        return config, lifecycle.fold(config, events)
    except (
        ConfigError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        AssertionError,
    ) as error:
        why = " ".join(str(error).split())
        raise Damaged(
            f"the journal of run '{run_id}' was damaged or changed by hand ({why}); "
            "put back a copy of it"
        ) from error


def _line(event: str, **content: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"event": event, "at": now, **{key: _plain(value) for key, value in content.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Record | RunConfig):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
