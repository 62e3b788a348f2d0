"""A phase in another process than its parent's, without Prefect: turns, pulses, results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbio_core import progress, runner
from symbio_core.config import RunConfig, changed
from symbio_core.errors import ConfigError, Interrupted, StorageError, SwapLost, TurnOver
from symbio_core.records import PhasePlan
from symbio_core.runner import Run
from symbio_core.runner.elsewhere import sit
from symbio_core.runner.living import judge
from symbio_core.storage.machine_notes import is_over, read_note
from symbio_core.storage.post import Post, Turn
from tests.conftest import tiny
from tests.waiting import until

QUICK = {
    "without": ["search", "final"],
    "budget.steps": 600,
    "compute.kind": "pool",
    "compute.elsewhere.beat_s": 0.1,
    "compute.elsewhere.lost_after_s": 1.0,
}


@pytest.fixture
def config(tiny_corpus: Path, tmp_path: Path) -> RunConfig:
    return changed(tiny(tiny_corpus, tmp_path / "storage"), QUICK)


@pytest.fixture
def run(config: RunConfig) -> Run:
    return runner.begin(config, "tree")


@pytest.fixture(autouse=True)
def no_wish_left() -> Iterator[None]:
    yield
    progress.clear_stop()


def first(run: Run) -> tuple[PhasePlan, Post]:
    plan = run.plan_next()
    assert plan is not None
    post = Post(run.store, plan)
    post.give_turn(None, Turn(number=1))
    return plan, post


def live_phase(run: Run, plan: PhasePlan, turn: int = 1) -> None:
    with sit(run.config.storage.root, run.run_id, plan, turn) as away:
        away.train(plan)
        away.write_battery(plan)


def test_the_parent_enters_what_a_phase_elsewhere_found_and_goes_on(run: Run) -> None:
    plan, post = first(run)
    before = len(run.events)
    assert not run.enter(plan, post.lines())
    live_phase(run, plan)
    assert len(runner.reopen(run.config.storage.root, "tree").events) == before
    assert run.enter(plan, post.lines())
    assert [event["event"] for event in run.events[before:]] == ["trained", "written"]
    judge(run, plan)
    assert len(run.attempts) == 1


def test_what_is_entered_twice_stands_in_the_journal_once(run: Run) -> None:
    plan, post = first(run)
    live_phase(run, plan)
    assert run.enter(plan, post.lines())
    events = run.events
    assert run.enter(plan, post.lines())
    assert run.events == events


def test_a_turn_is_taken_once(run: Run) -> None:
    plan, _ = first(run)
    live_phase(run, plan)
    with pytest.raises(TurnOver, match="taken by another process"):
        live_phase(run, plan)


def test_a_turn_that_does_not_count_is_not_taken(run: Run) -> None:
    plan, _ = first(run)
    with pytest.raises(TurnOver, match="is over"):
        live_phase(run, plan, turn=2)


def test_a_process_whose_turn_is_over_ends_in_the_midst_and_saves_nothing(run: Run) -> None:
    plan, post = first(run)
    kept = run.store.checkpoints.newest_whole("step").manifest

    def pass_the_turn(_: progress.Progress) -> None:
        turn = post.turn()
        if turn is not None and turn.number == 1:
            post.give_turn(turn, Turn(number=2))
        time.sleep(0.5)  # as slow as a large model, so that a pulse comes before the end

    unsubscribe = progress.subscribe(pass_the_turn)
    try:
        with pytest.raises(TurnOver):
            live_phase(run, plan)
    finally:
        unsubscribe()
    assert post.lines() == []
    assert run.store.checkpoints.newest_whole("step").manifest == kept


def test_a_save_of_an_earlier_turn_is_refused_once_a_later_one_writes(run: Run) -> None:
    plan, post = first(run)
    root = run.config.storage.root
    early = sit(root, "tree", plan, 1)
    woken = early.__enter__()
    with woken.writing():
        post.give_turn(post.turn(), Turn(number=2))
    with sit(root, "tree", plan, 2) as late, late.writing():
        newest = late.store.checkpoints.pointer()
    with pytest.raises(TurnOver):
        woken.store.checkpoints.save({"a": {"x": 1}}, {}, step=1, kind="step")
    with pytest.raises(TurnOver):
        early.__exit__(None, None, None)
    assert run.store.checkpoints.pointer() == newest


def test_the_parents_wish_to_stop_saves_the_phase_and_the_next_turn_goes_on(run: Run) -> None:
    plan, post = first(run)

    def wish(_: progress.Progress) -> None:
        turn = post.turn()
        if turn is not None and not turn.stop:
            post.give_turn(turn, turn.model_copy(update={"stop": True}))
        time.sleep(0.05)

    unsubscribe = progress.subscribe(wish)
    try:
        with pytest.raises(Interrupted):
            live_phase(run, plan)
    finally:
        unsubscribe()
    progress.clear_stop()
    pulse = post.pulse()
    assert pulse is not None
    assert (pulse.state, pulse.retryable) == ("saved", True)
    before = post.turn()
    post.give_turn(before, Turn(number=2))
    live_phase(run, plan, turn=2)
    assert run.enter(plan, post.lines())
    outcome = next(e["outcome"] for e in run.events if e["event"] == "trained")
    assert outcome["line_steps"] == plan.steps


def test_the_parents_wish_for_an_end_gives_a_whole_outcome_before_the_last_step(run: Run) -> None:
    plan, post = first(run)
    before = post.turn()
    assert before is not None
    post.give_turn(before, before.model_copy(update={"end": "the cap on dollars was reached"}))
    progress.request_end("the cap on dollars was reached")
    live_phase(run, plan)
    assert run.enter(plan, post.lines())
    outcome = next(e["outcome"] for e in run.events if e["event"] == "trained")
    assert outcome["stopped"] == "seconds"
    assert outcome["reason"] == "the cap on dollars was reached"
    assert outcome["line_steps"] < plan.steps
    judge(run, plan)
    assert run.plan_next() is None


def test_two_parents_cannot_both_start_a_phase_again(run: Run) -> None:
    _, post = first(run)
    seen = post.turn()
    post.give_turn(seen, Turn(number=2))
    with pytest.raises(SwapLost):
        post.give_turn(seen, Turn(number=2))


def test_a_failure_reaches_the_parent_in_its_own_words(run: Run) -> None:
    plan, post = first(run)
    with pytest.raises(ConfigError), sit(run.config.storage.root, "tree", plan, 1):
        raise ConfigError("the corpus is not there; mount it")
    pulse = post.pulse()
    assert pulse is not None
    assert (pulse.state, pulse.message) == ("failed", "the corpus is not there; mount it")
    assert not pulse.retryable


def test_a_phase_beats_while_it_lives(run: Run) -> None:
    plan, post = first(run)
    with sit(run.config.storage.root, "tree", plan, 1):
        until(lambda: (pulse := post.pulse()) and pulse.beat > 3)
    pulse = post.pulse()
    assert pulse is not None
    assert pulse.state == "done"


def test_plain_python_refuses_a_run_whose_phases_belong_elsewhere(run: Run) -> None:
    with pytest.raises(ConfigError, match="needs Prefect"):
        runner.live(run)


BROKEN = [b"", b"[]", b"{}", b"null", b"\xff", b'{"lines": [1]}', b'{"lines": 7}', b"[" * 100_000]


@pytest.mark.parametrize("name", ["turn.json", "pulse.json", "result.json"])
@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:12]))
def test_a_damaged_post_is_told_in_one_line(run: Run, name: str, content: bytes) -> None:
    _, post = first(run)
    key = f"{post.home}/{name}"
    found = post.store.read(key)
    post.store.swap(key, content, found.version if found else None)
    looks = {"turn.json": post.turn, "pulse.json": post.pulse, "result.json": post.lines}
    with pytest.raises(StorageError, match=f"{name} is damaged") as error:
        looks[name]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:12]))
def test_a_damaged_note_or_state_stops_no_watchdog(run: Run, content: bytes) -> None:
    store = run.store.store
    store.create(f"runs/{run.run_id}/machines/vm.json", content)
    assert read_note(store, run.run_id, "vm") is None
    state = store.read(f"runs/{run.run_id}/state.json")
    store.swap(f"runs/{run.run_id}/state.json", content, state.version if state else None)
    assert not is_over(store, run.run_id)


def test_a_start_that_was_given_up_and_wakes_writes_no_result(run: Run) -> None:
    _, post = first(run)
    asleep = post.take(1, "one host")
    before = post.turn()
    post.give_turn(before, Turn(number=2))
    post.take(2, "another host")
    with pytest.raises(TurnOver):
        asleep.note({"event": "trained"})
    assert post.lines() == []
