from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.lifecycle import advance, decide, plan
from symbio_core.records import Adaptation, Change, Decision, RunState

LAST = len(PHASES) - 1
OXIDATION = PHASES.index("oxidation")


def decided(
    config: RunConfig, facts: SimpleNamespace, *failed: str, index: int = 2, choice: Any = None,
    state: dict[str, Any] | None = None, **outcome: Any,
) -> Decision:  # fmt: skip
    before, planned = facts.at(config, index, **(state or {}))
    names = {"progress", *failed}
    verdicts = [facts.verdict(name, name not in failed) for name in sorted(names)]
    return decide(config, before, planned, facts.outcome(planned, **outcome), verdicts, choice)


# --- the five rules, in their order


def test_a_passed_phase_advances_from_its_end(config: RunConfig, facts: SimpleNamespace) -> None:
    decision = decided(config, facts)
    assert facts.kind_and_rule(decision) == ("advance", "advance")
    assert decision.start == "end"
    assert decision.reason == "progress was fine"


def test_divergence_comes_first_and_repeats_from_the_start_with_a_tighter_clip(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    everything = ("regression", "train/validation divergence", "progress")
    decision = decided(config, facts, *everything, stopped="diverged", reason="40% were skipped")
    assert facts.kind_and_rule(decision) == ("repeat", "diverged")
    assert decision.start == "line"
    assert decision.adaptation.clip_scale == 0.5
    assert "40% were skipped" in decision.reason


def test_an_end_without_a_number_has_diverged_even_if_the_phase_says_done(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    decision = decided(config, facts, end=facts.ref("end", math.nan))
    assert facts.kind_and_rule(decision) == ("repeat", "diverged")


def test_divergence_halves_the_learning_rate_of_the_next_plan(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, planned = facts.at(config, 2)
    outcome = facts.outcome(planned, stopped="diverged", reason="loss is nan")
    decision = decide(config, state, planned, outcome, ())
    after = plan(config, advance(config, state, planned, outcome, None, decision))
    assert after is not None
    assert (after.lr_scale, after.adaptation.clip_scale) == (0.5, 0.5)
    assert (after.phase, after.attempt, after.start) == (planned.phase, 2, "line")


def test_regression_rolls_back_to_the_best_of_best_and_dormant(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    best = facts.ref("best", 1.5, quality=facts.quality(0.5))
    wiser = facts.ref("sleeper", 1.7, quality=facts.quality(0.8))
    failed = ("regression", "train/validation divergence", "progress")
    decision = decided(config, facts, *failed, state={"best": best})
    assert facts.kind_and_rule(decision) == ("rollback", "regression")
    assert decision.start == "best"
    assert decision.adaptation != Adaptation()
    both = {"best": best, "dormant": (wiser,)}
    assert decided(config, facts, *failed, state=both).start == "sleeper"


def test_overfitting_puts_the_end_to_sleep_and_goes_on_from_the_lowest_loss(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    decision = decided(config, facts, "train/validation divergence", "progress")
    assert facts.kind_and_rule(decision) == ("dormant", "train/validation divergence")
    assert (decision.dormant, decision.start) == ("end", "low")
    # Where the phase never got below its start, the start is its best.
    worse = decided(
        config, facts, "train/validation divergence",
        start=facts.ref("line", 1.0), best=facts.ref("low", math.nan),
    )  # fmt: skip
    assert worse.start == "line"


def test_an_end_that_sleeps_is_never_what_the_run_goes_on_from(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    end = facts.ref("end", 1.0)
    decision = decided(config, facts, "train/validation divergence", end=end, best=end)
    assert (decision.dormant, decision.start) == ("end", "line")


def test_a_gate_that_is_not_passed_repeats_with_another_niche(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    decision = decided(config, facts, "progress")
    assert facts.kind_and_rule(decision) == ("repeat", "gate not passed")
    assert decision.start == "line"
    assert decision.adaptation.lr_scale == 0.7
    assert {change.cause for change in decision.applied} == {"progress"}


def test_what_a_verdict_asks_for_comes_before_the_default(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, planned = facts.at(config, 2)
    ask = Change(setting="immigrants", op="add", value=0.3)
    verdicts = (
        facts.verdict("progress", False),
        facts.verdict("population collapse", False, changes=(ask,)),
    )
    decision = decide(config, state, planned, facts.outcome(planned), verdicts)
    assert [change.setting for change in decision.applied] == ["immigrants"]
    assert decision.adaptation.lr_scale == 1.0


def test_a_missing_progress_verdict_counts_as_not_passed_and_says_so(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, planned = facts.at(config, 2)
    decision = decide(config, state, planned, facts.outcome(planned), ())
    assert facts.kind_and_rule(decision) == ("repeat", "gate not passed")
    assert "the progress gate gave no verdict" in decision.reason


def test_responses_reshape_the_next_phase_of_a_run_that_advances(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, planned = facts.at(config, 2)
    ask = Change(setting="open_reserve", op="set", value=1.0)
    plateau = facts.verdict("activation space exhaustion", False, changes=(ask,))
    outcome = facts.outcome(planned)
    decision = decide(config, state, planned, outcome, (*facts.good, plateau))
    after = plan(config, advance(config, state, planned, outcome, None, decision))
    assert after is not None
    assert (after.phase, after.adaptation.open_reserve) == ("oxidation", 1.0)
    assert decision.applied[0].cause == "activation space exhaustion"


# --- caps


@pytest.mark.parametrize("cap", ["steps", "seconds"])
@pytest.mark.parametrize("failed", ["", "progress", "regression", "train/validation divergence"])
def test_a_cap_ends_the_run_well_with_its_best(
    config: RunConfig, facts: SimpleNamespace, cap: str, failed: str
) -> None:
    best = facts.ref("best", 1.5)
    names = [failed] if failed else []
    decision = decided(config, facts, *names, state={"best": best}, stopped=cap)
    assert facts.kind_and_rule(decision) == ("finish", "cap")
    assert decision.start == "best"
    assert f"the cap on {cap} is reached" in decision.reason
    assert not decision.flagged


def test_seconds_are_added_up_over_the_run(config: RunConfig, facts: SimpleNamespace) -> None:
    config = changed(config, {"budget.max_seconds": 60.0})
    spent = {"seconds_spent": 50.0}
    assert decided(config, facts, state=spent, seconds=9.0).kind == "advance"
    assert decided(config, facts, state=spent, seconds=10.0).rule == "cap"


def test_a_cap_goes_before_another_try_and_before_asking(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    asking = changed(config, {"budget.on_exhausted": "ask"})
    spent = {"attempt": 2, "steps_spent": 7000}
    decision = decided(asking, facts, "progress", state=spent, line_steps=3000, confirm_steps=0)
    assert facts.kind_and_rule(decision) == ("finish", "cap")


def test_the_end_of_the_last_phase_is_no_cap(config: RunConfig, facts: SimpleNamespace) -> None:
    state = {"confirmed": True, "steps_spent": 9000}
    decision = decided(config, facts, index=LAST, state=state)
    assert facts.kind_and_rule(decision) == ("finish", "advance")
    assert (decision.start, decision.reason) == ("end", "progress was fine; all phases are done")
    short = decided(config, facts, "progress", index=LAST, state=state)
    assert facts.kind_and_rule(short) == ("finish", "cap")
    assert "all phases are done" in short.reason
    assert short.start == "low"
    cut = decided(config, facts, index=LAST, state=state, stopped="seconds")
    assert facts.kind_and_rule(cut) == ("finish", "cap")


# --- past the bounds

TIRED: dict[str, Any] = {"attempt": 2}


def test_past_its_attempts_a_run_goes_on_from_its_best_and_is_flagged(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    decision = decided(config, facts, "progress", state=TIRED | {"best": facts.ref("best", 1.0)})
    assert facts.kind_and_rule(decision) == ("advance", "exhausted")
    assert (decision.start, decision.flagged) == ("best", True)
    assert "has had its 2 tries" in decision.reason


@pytest.mark.parametrize(
    ("failed", "outcome"),
    [("progress", {}), ("regression", {}), ("progress", {"stopped": "diverged"})],
)
def test_no_rule_may_try_again_past_the_bound(
    config: RunConfig, facts: SimpleNamespace, failed: str, outcome: dict[str, Any]
) -> None:
    assert decided(config, facts, failed, **outcome).kind in ("repeat", "rollback")
    assert decided(config, facts, failed, state=TIRED, **outcome).rule == "exhausted"


def test_rollbacks_have_a_bound_of_their_own(config: RunConfig, facts: SimpleNamespace) -> None:
    best = facts.ref("best", 1.95)
    tired = {"rollbacks": 3, "best": best}
    decision = decided(config, facts, "regression", state=tired)
    assert facts.kind_and_rule(decision) == ("advance", "exhausted")
    assert (
        decision.start == "best"
    )  # "low" and "end" have a lower loss, but belong to what regressed
    assert "has had its 1 try" in decision.reason
    assert decided(config, facts, "progress", state=tired).kind == "repeat"


def test_stop_ends_the_run_at_the_bound(config: RunConfig, facts: SimpleNamespace) -> None:
    stopping = changed(config, {"budget.on_exhausted": "stop"})
    decision = decided(stopping, facts, "progress", state=TIRED)
    assert facts.kind_and_rule(decision) == ("finish", "exhausted")
    assert decision.start == "low"


def test_in_the_last_phase_going_on_means_ending_flagged(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    decision = decided(
        config, facts, "progress", index=LAST, state=TIRED | {"confirmed": True}, line_steps=5
    )
    assert facts.kind_and_rule(decision) == ("finish", "exhausted")
    assert decision.flagged


@pytest.mark.parametrize(
    ("choice", "kind", "flagged"),
    [("continue", "advance", True), ("stop", "finish", False), ("repeat", "repeat", False)],
)
def test_a_person_is_asked_and_obeyed(
    config: RunConfig, facts: SimpleNamespace, choice: str, kind: str, flagged: bool
) -> None:
    asking = changed(config, {"budget.on_exhausted": "ask"})
    question = decided(asking, facts, "progress", state=TIRED)
    assert question.kind == "ask"
    assert question.reason.endswith("What now?")
    answer = decided(asking, facts, "progress", state=TIRED, choice=choice)
    assert (answer.kind, answer.flagged) == (kind, flagged)


def test_a_choice_counts_only_where_one_is_due(config: RunConfig, facts: SimpleNamespace) -> None:
    for choice in ("continue", "stop", "repeat"):
        assert decided(config, facts, choice=choice) == decided(config, facts)
        again = decided(config, facts, "progress", choice=choice)
        assert again == decided(config, facts, "progress")


# --- dormant checkpoints wake


def sleeper(facts: SimpleNamespace, by: float, **more: Any) -> Any:
    nats = tuple(x - by + 0.001 * (-1) ** i for i, x in enumerate(facts.nats))
    return facts.ref("sleeper", 5.0, **({"val_nats": nats} | more))


def test_at_the_end_of_oxidation_a_surely_better_dormant_checkpoint_wakes(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, planned = facts.at(config, OXIDATION, dormant=(sleeper(facts, 0.1),))
    outcome = facts.outcome(planned)
    decision = decide(config, state, planned, outcome, facts.good)
    assert facts.kind_and_rule(decision) == ("advance", "revival")
    assert decision.start == "sleeper"
    after = advance(config, state, planned, outcome, None, decision)
    assert (after.line, after.dormant) == ("sleeper", ())
    assert "sleeper" in after.known


def test_noise_wakes_nobody(config: RunConfig, facts: SimpleNamespace) -> None:
    noise = tuple(x + d for x, d in zip(facts.nats, (0.2, -0.3, 0.2, -0.3, 0.2, -0.1), strict=True))
    for nats in (noise, facts.nats, facts.nats[:4], (), (math.nan,) * 6, (-math.inf,) * 6):
        asleep = {"dormant": (facts.ref("sleeper", 0.5, val_nats=nats),)}
        assert decided(config, facts, index=OXIDATION, state=asleep).rule == "advance"


def test_dormant_checkpoints_sleep_through_other_phases(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    asleep = {"dormant": (sleeper(facts, 0.1),), "steps_spent": 100}
    for index in (1, 2, 4):
        assert decided(config, facts, index=index, state=asleep).rule == "advance"


def test_oxidation_left_by_another_door_wakes_them_too(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    asleep = {"dormant": (sleeper(facts, 0.1),)}
    overfitted = decided(
        config, facts, "train/validation divergence", index=OXIDATION, state=asleep
    )
    assert (overfitted.kind, overfitted.rule, overfitted.start) == ("dormant", "revival", "sleeper")
    assert overfitted.dormant == "end"
    again = decided(config, facts, "progress", index=OXIDATION, state=asleep)
    assert again.rule == "gate not passed"


def test_who_is_rolled_back_to_is_awake(config: RunConfig, facts: SimpleNamespace) -> None:
    asleep = facts.ref("sleeper", 1.0)
    state, planned = facts.at(config, 2, dormant=(asleep,), best=facts.ref("best", 1.5))
    outcome = facts.outcome(planned)
    decision = decide(config, state, planned, outcome, (facts.verdict("regression", False),))
    after = advance(config, state, planned, outcome, None, decision)
    assert (after.line, after.dormant, after.rollbacks) == ("sleeper", (), 1)


def test_a_first_phase_that_broke_everything_goes_back_to_its_start(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    planned = plan(config, RunState())
    assert planned is not None
    nothing = facts.ref("nothing", math.nan)
    outcome = facts.outcome(planned, start=nothing, end=nothing, best=nothing, stopped="seconds")
    decision = decide(config, RunState(), planned, outcome, ())
    assert (decision.kind, decision.start) == ("finish", "nothing")


def test_what_was_learned_in_one_phase_is_half_forgotten_after_the_next(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, plan = facts.at(config, 2, adaptation=Adaptation(mutation_scale=2.0))
    decision = decide(config, state, plan, facts.outcome(plan), facts.good)
    assert decision.adaptation.mutation_scale == 1.5
    (change,) = decision.applied
    assert (change.before, change.after, change.cause) == (2.0, 1.5, "relaxation")


def test_without_a_niche_verdicts_change_nothing_but_what_another_try_needs(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    fixed = changed(config, {"without": ["niche"]})
    state, plan = facts.at(fixed, 2)
    collapse = facts.verdict(
        "population collapse",
        False,
        changes=(Change(setting="immigrants", op="add", value=0.2),),
    )
    onward = decide(fixed, state, plan, facts.outcome(plan), (*facts.good, collapse))
    assert (onward.kind, onward.applied) == ("advance", ())
    again = decide(
        fixed, state, plan, facts.outcome(plan), (facts.verdict("progress", False), collapse)
    )
    assert again.kind == "repeat"
    assert {change.cause for change in again.applied} == {"progress"}


def test_without_dormancy_nothing_sleeps_and_the_lowest_loss_goes_on(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    awake = changed(config, {"without": ["dormancy"]})
    state, plan = facts.at(awake, 2)
    verdicts = (*facts.good, facts.verdict("train/validation divergence", False))
    decision = decide(awake, state, plan, facts.outcome(plan), verdicts)
    assert (decision.kind, decision.start, decision.dormant) == ("advance", "low", None)
    assert "sleeps" not in decision.reason
