"""Whole lives under random evidence: they end, stay within the cap and lose nothing."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import StorageError
from symbio_core.lifecycle import advance, best_of, better, decide, fold, line_points, plan, replay
from symbio_core.records import (
    Adaptation,
    Attempt,
    Change,
    CheckpointRef,
    Decision,
    EvalPoint,
    Interval,
    PhasePlan,
    RunState,
)

odd_float = st.sampled_from([math.nan, math.inf, -math.inf])
bpb = st.one_of(st.floats(0.5, 5.0), odd_float)
text_quality = st.builds(
    lambda value, half: Interval(value=value, low=value - half, high=value + half),
    st.one_of(st.floats(0.0, 1.0), odd_float),
    st.floats(0.0, 0.2),
)
change = st.builds(
    Change,
    setting=st.sampled_from(sorted(Adaptation.model_fields)),
    op=st.sampled_from(["scale", "add", "set"]),
    value=st.one_of(st.floats(-3.0, 3.0), odd_float),
)
PATIENCE = 5
"""Times in a life that a person wants one more try."""
NAMES = ("progress", "regression", "train/validation divergence", "population collapse")


@dataclass(frozen=True)
class Luck:
    """What chance brings to one attempt."""

    stopped: str
    spent_frac: float
    confirms: bool
    end: float
    low: float
    shift: float
    quality: Interval
    passed: dict[str, bool]
    changes: tuple[Change, ...]
    seconds: float
    choice: str


luck = st.builds(
    Luck,
    stopped=st.sampled_from(["done"] * 7 + ["diverged", "steps", "seconds"]),
    spent_frac=st.floats(0.0, 1.0),
    confirms=st.booleans(),
    end=bpb,
    low=bpb,
    shift=st.one_of(st.floats(-0.5, 0.5), odd_float),
    quality=text_quality,
    passed=st.fixed_dictionaries({}, optional={name: st.booleans() for name in NAMES}),
    changes=st.lists(change, max_size=3).map(tuple),
    seconds=st.one_of(st.floats(0.0, 100.0), st.just(math.nan)),
    choice=st.sampled_from(["continue", "continue", "stop", "repeat"]),
)


@dataclass
class Life:
    """A life that was lived, with its journal."""

    config: RunConfig
    facts: SimpleNamespace
    state: RunState = field(default_factory=RunState)
    events: list[dict[str, Any]] = field(default_factory=list)
    seen: list[CheckpointRef] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    spent: int = 0
    wishes: int = 0
    """Times a person wanted one more try."""

    def live(self, fortune: list[Luck]) -> Life:
        for turn in range(200):
            planned = plan(self.config, self.state)
            if planned is None:
                return self
            first = planned.start is None
            planned = planned.model_copy(update={"start": "first"}) if first else planned
            before = self.state
            self.attempt(planned, fortune[turn % len(fortune)], str(turn))
            self.check(before, planned)
        raise AssertionError("a life that does not end")

    def attempt(self, planned: PhasePlan, luck: Luck, turn: str) -> None:
        start = self.state.known.get(planned.start or "") or self.facts.ref("first", 5.0)
        confirm = planned.confirm_steps if luck.confirms and luck.stopped == "done" else 0
        nats = tuple(x + luck.shift for x in self.facts.nats)
        outcome = self.facts.outcome(
            planned,
            stopped=luck.stopped,
            start=start,
            end=self.facts.ref(f"end {turn}", luck.end, val_nats=nats),
            best=self.facts.ref(f"low {turn}", luck.low, val_nats=nats),
            line_steps=int(luck.spent_frac * (planned.steps - planned.confirm_steps)),
            confirm_steps=confirm,
            seconds=luck.seconds,
        )
        verdicts = [
            self.facts.verdict(name, passed, changes=luck.changes)
            for name, passed in luck.passed.items()
        ]
        decision = decide(self.config, self.state, planned, outcome, verdicts)
        if decision.kind == "ask":
            choice = luck.choice if self.wishes < PATIENCE else "continue"
            self.wishes += choice == "repeat"
            decision = decide(self.config, self.state, planned, outcome, verdicts, choice)
        self.spent += outcome.line_steps + confirm
        self.seen += [start, outcome.end, outcome.best]
        self.decisions.append(decision)
        state = advance(self.config, self.state, planned, outcome, luck.quality, decision)
        self.state = state
        battery = self.facts.battery(luck.quality)
        self.events += [
            {"event": "planned", "plan": planned.model_dump(mode="json")},
            {"event": "trained", "outcome": outcome.model_dump(mode="json")},
            {"event": "written", "battery": battery.model_dump(mode="json")},
            {
                "event": "decided",
                "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
                "decision": decision.model_dump(mode="json"),
                "quality": luck.quality.model_dump(mode="json"),
            },
        ]

    def check(self, before: RunState, planned: PhasePlan) -> None:
        state, budget = self.state, self.config.budget
        assert planned.steps <= budget.steps - before.steps_spent
        assert state.steps_spent == self.spent <= budget.steps
        assert state.attempt <= budget.max_attempts + self.wishes
        assert state.rollbacks <= budget.max_rollbacks + self.wishes
        assert 0 < state.lr_scale <= 1.0
        assert Adaptation.model_validate(state.adaptation.model_dump()) == state.adaptation
        assert dumped(RunState.model_validate_json(state.model_dump_json())) == dumped(state)
        self.check_checkpoints(before)

    def check_checkpoints(self, before: RunState) -> None:
        state = self.state
        assert state.line in state.known
        assert state.best is None or dumped(state.known[state.best.id]) == dumped(state.best)
        assert all(ref.id in state.known for ref in state.dormant)
        known_losses = [ref.val_bpb for ref in state.known.values()]
        lowest = min((r.val_bpb for r in self.seen if math.isfinite(r.val_bpb)), default=None)
        assert lowest is None or lowest in known_losses
        if before.best is not None:
            assert state.best is not None
            assert is_no_step_back(before.best, state.best)
        if before.best_text is not None:
            assert state.best_text is not None
            assert value_of(state.best_text) >= value_of(before.best_text)
            assert dumped(state.known[state.best_text.id]) == dumped(state.best_text)


def test_text_that_fades_a_little_in_each_phase_is_measured_against_the_best_of_all(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    life = Life(config, facts)
    fine = {"progress": True}
    for turn, value in enumerate((0.6, 0.5, 0.42, 0.35)):
        planned = plan(config, life.state)
        assert planned is not None
        planned = planned.model_copy(update={"start": planned.start or "first"})
        bpb = 1.5 - 0.1 * turn
        quality = facts.quality(value, 0.08)
        one = Luck("done", 1.0, True, bpb, bpb, 0.0, quality, fine, (), 1.0, "stop")
        life.attempt(planned, one, str(turn))
    state = life.state
    assert state.best_text is not None
    assert state.best_text.id == "end 0"
    assert state.best_text == state.known["end 0"], "so that it is kept"
    assert state.best is not None
    assert state.best.id == "end 1", (
        "later ones are surely worse than the first, whatever their loss"
    )
    state = state.model_copy(update={"steps_spent": 100})
    _, planned = facts.at(config, 4)
    regressed = decide(
        config, state, planned, facts.outcome(planned), (facts.verdict("regression", False),)
    )
    assert (regressed.kind, regressed.start) == ("rollback", "end 1")
    worse = state.model_copy(update={"best": facts.ref("end 3", 1.2, quality=facts.quality(0.3))})
    again = decide(
        config, worse, planned, facts.outcome(planned), (facts.verdict("regression", False),)
    )
    assert again.start == "end 0"


def is_no_step_back(old: CheckpointRef, new: CheckpointRef) -> bool:
    """Surely better text, or no surely worse text and no higher loss."""
    if new.id == old.id:
        return True
    a, b = new.quality, old.quality
    numbers = [x for i in (a, b) if i is not None for x in (i.low, i.high)]
    if a is not None and b is not None and all(math.isfinite(x) for x in numbers):
        if a.low > b.high:
            return True
        if a.high < b.low:
            return False
    return new.val_bpb < old.val_bpb


def value_of(ref: CheckpointRef) -> float:
    assert ref.quality is not None
    return ref.quality.value


def dumped(record: Any) -> str:
    """JSON text, in which one NaN equals another."""
    text: str = record.model_dump_json()
    return text


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    return changed(
        RunConfig(),
        {
            "budget.steps": draw(st.one_of(st.integers(1, 60), st.integers(200, 8000))),
            "budget.max_attempts": draw(st.integers(1, 4)),
            "budget.max_rollbacks": draw(st.integers(0, 4)),
            "budget.on_exhausted": draw(st.sampled_from(["continue", "ask", "stop"])),
            "budget.max_seconds": draw(st.sampled_from([None, 150.0])),
            "confirm.warm_steps": draw(st.sampled_from([0, 40])),
        },
    )


fortunes = st.lists(luck, min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(config=configs(), fortune=fortunes)
def test_a_life_ends_within_its_cap_and_loses_no_best_checkpoint(
    facts: SimpleNamespace, config: RunConfig, fortune: list[Luck]
) -> None:
    life = Life(config, facts).live(fortune)
    assert bool(life.state.finished) == bool(life.decisions)
    assert len(life.decisions) <= len(PHASES) * config.budget.max_attempts + life.wishes
    assert [d.kind for d in life.decisions].count("finish") <= 1


@settings(max_examples=80, deadline=None)
@given(config=configs(), fortune=fortunes)
def test_the_journal_leads_to_the_same_state_again(
    facts: SimpleNamespace, config: RunConfig, fortune: list[Luck]
) -> None:
    life = Life(config, facts).live(fortune)
    events = json.loads(json.dumps(life.events))
    assert dumped(replay(config, events)) == dumped(life.state)

    folded = fold(config, events)
    assert dumped(folded.state) == dumped(life.state)
    assert folded.pending is None
    assert [attempt.decision for attempt in folded.attempts] == life.decisions


@settings(max_examples=40, deadline=None)
@given(config=configs(), fortune=fortunes, data=st.data())
def test_a_journal_that_was_changed_by_hand_is_found_out(
    facts: SimpleNamespace, config: RunConfig, fortune: list[Luck], data: st.DataObject
) -> None:
    config = changed(config, {"budget.steps": 200 + config.budget.steps})
    events = json.loads(json.dumps(Life(config, facts).live(fortune).events))
    number = data.draw(st.sampled_from([i for i in range(len(events)) if i % 4 in (0, 3)]))
    event = events[number]
    if event["event"] == "planned":
        event["plan"]["steps"] += 1
    else:
        event["decision"]["start"] = "another"
    with pytest.raises(StorageError, match=f"^journal event {number} \\({event['event']}\\)"):
        replay(config, events)


def test_a_journal_may_break_off_anywhere(config: RunConfig, facts: SimpleNamespace) -> None:
    fine = Luck(
        "done", 1.0, True, 1.5, 1.4, 0.0, facts.quality(0.5), {"progress": True}, (), 1.0, "stop"
    )  # fmt: skip
    events = Life(config, facts).live([fine]).events
    assert len(events) == 4 * len(PHASES)
    for cut in range(len(events)):
        folded = fold(config, events[:cut])
        assert folded.state.phase_index == len(folded.attempts) == cut // 4
        pending = folded.pending
        assert (pending is not None) == (cut % 4 > 0)
        assert (pending is not None and pending.outcome is not None) == (cut % 4 > 1)
        assert (pending is not None and pending.battery is not None) == (cut % 4 > 2)
        assert replay(config, events[:cut]) == folded.state


def test_an_untroubled_life_goes_through_six_phases_and_holds_one_confirmation(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    fine = Luck(
        "done", 1.0, True, 1.5, 1.4, 0.0, facts.quality(0.5), {"progress": True}, (), 1.0, "stop"
    )  # fmt: skip
    life = Life(config, facts).live([fine])
    assert [decision.kind for decision in life.decisions] == ["advance"] * 5 + ["finish"]
    assert life.state.steps_spent == config.budget.steps
    assert life.state.confirmed
    assert [e["plan"]["confirm_steps"] > 0 for e in life.events[::4]] == [
        name == "oxidation" for name in PHASES
    ]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"event": "trained"}], r"event 0 \(trained\) does not fit: outcome"),
        ([{"event": "decided", "decision": {}}], r"\(decided\) does not fit: a decision without"),
        ([{"event": "opened"}, {"event": "planned", "plan": {}}], r"event 1 \(planned\) does not"),
        ([{"what": "ever"}], r"event 0 \(nameless\) does not fit: event"),
    ],
)
def test_a_damaged_event_is_named(
    config: RunConfig, events: list[dict[str, Any]], message: str
) -> None:
    for read in (fold, replay):
        with pytest.raises(StorageError, match=message):
            read(config, events)


def test_an_outcome_of_another_phase_does_not_fit(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    _, first = facts.at(config, 0)
    _, third = facts.at(config, 2)
    events = [
        {"event": "planned", "plan": first.model_dump(mode="json")},
        {"event": "trained", "outcome": facts.outcome(third).model_dump(mode="json")},
    ]
    with pytest.raises(StorageError, match="an outcome of cambrian where abiogenesis is under way"):
        fold(config, events)


def test_a_question_leaves_the_attempt_pending(config: RunConfig, facts: SimpleNamespace) -> None:
    asking = changed(config, {"budget.on_exhausted": "ask", "budget.max_attempts": 1})
    planned = plan(asking, RunState())
    assert planned is not None
    planned = planned.model_copy(update={"start": "first"})
    outcome, battery = facts.outcome(planned), facts.battery(facts.quality(0.5))
    question = decide(asking, RunState(), planned, outcome, ())
    answer = decide(asking, RunState(), planned, outcome, (), "repeat")
    events = [
        {"event": "planned", "plan": planned.model_dump(mode="json")},
        {"event": "trained", "outcome": outcome.model_dump(mode="json")},
        {"event": "written", "battery": battery.model_dump(mode="json")},
        {"event": "decided", "verdicts": [], "decision": question.model_dump(mode="json")},
    ]
    waiting = fold(asking, events)
    assert (waiting.state, waiting.attempts) == (RunState(), ())
    assert waiting.pending is not None
    answered = [*events[:3], {**events[3], "decision": answer.model_dump(mode="json")}]
    assert replay(asking, events) == RunState()
    assert replay(asking, answered).attempt == 2


# --- which is better


def test_better_text_comes_before_lower_loss_when_it_is_sure(facts: SimpleNamespace) -> None:
    eloquent = facts.ref("eloquent", 2.0, quality=facts.quality(0.8))
    low = facts.ref("low", 1.0, quality=facts.quality(0.5))
    level = facts.ref("level", 1.9, quality=facts.quality(0.79))
    assert better(low, eloquent) is eloquent
    assert better(eloquent, low) is eloquent
    assert better(eloquent, level) is level
    assert better(level, eloquent) is level


def test_equal_checkpoints_leave_the_first_in_place(facts: SimpleNamespace) -> None:
    a, b = facts.ref("a", 1.5), facts.ref("b", 1.5)
    assert better(a, b) is a
    assert best_of([b, a]) is b


def test_what_is_not_a_number_is_never_better(facts: SimpleNamespace) -> None:
    good = facts.ref("good", 1.5, quality=facts.quality(0.5))
    endless = Interval(value=math.inf, low=math.inf, high=math.inf)
    for odd in (math.nan, -math.inf, math.inf):
        assert better(good, facts.ref("odd", odd)) is good
        assert better(None, facts.ref("odd", odd)) is None
        assert better(facts.ref("odd", odd), good) is good
    assert better(good, facts.ref("endless", 1.6, quality=endless)) is good
    assert best_of([None, None]) is None


# --- what a line did before


def test_the_points_of_a_line_are_those_of_its_own_ancestors(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    """Ends that were rolled back or put to sleep are no part of what came before."""
    _, planned = facts.at(config, 2)

    def attempt(name: str, start: str, *steps: int) -> Attempt:
        points = tuple(
            EvalPoint(step=s, line_step=s, train_nats=2.0, val_nats=2.0, val_bpb=1.0) for s in steps
        )
        outcome = facts.outcome(
            planned, points=points, end=facts.ref(f"{name} end"), best=facts.ref(f"{name} best")
        )
        return Attempt(
            plan=planned.model_copy(update={"start": start}), outcome=outcome, verdicts=(),
            battery=facts.battery(facts.quality(0.5)),
            decision=Decision(kind="advance", rule="advance", reason="", start=None),
        )  # fmt: skip

    attempts = (
        attempt("a", "first", 0, 100),
        attempt("ruined", "a end", 100, 150, 190),
        attempt("b", "a end", 100, 200, 300),
        attempt("c", "b best", 200, 280),
    )
    told = [p.line_step for p in line_points(attempts, "c end")]
    assert told == [0, 100, 200, 280], "b was left at its best, in step 200"
    assert [p.line_step for p in line_points(attempts, "ruined end")] == [0, 100, 150, 190]
    assert line_points(attempts, "first") == line_points(attempts, None) == ()
