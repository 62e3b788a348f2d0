from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.config import PHASES, RunConfig
from symbio_core.lifecycle import adapt, decide, effective
from symbio_core.lifecycle.phases import relaxed, reshaped
from symbio_core.records import Adaptation, AppliedChange, Change, Response, Verdict

any_float = st.floats(allow_nan=True, allow_infinity=True)
changes = st.builds(
    Change,
    setting=st.sampled_from(sorted(Adaptation.model_fields)),
    op=st.sampled_from(["scale", "add", "set"]),
    value=st.one_of(any_float, st.floats(-3, 3)),
)


@st.composite
def adaptations(draw: st.DrawFn) -> Adaptation:
    values = {}
    for name, field in Adaptation.model_fields.items():
        low = next(part.ge for part in field.metadata if hasattr(part, "ge"))
        high = next(part.le for part in field.metadata if hasattr(part, "le"))
        values[name] = draw(st.one_of(st.sampled_from([low, high]), st.floats(low, high)))
    return Adaptation(**values)


def failed(*wanted: Change, name: str = "population collapse", passed: bool = False) -> Verdict:
    return Verdict(
        gate="overfitting", name=name, metric="diversity", value=0.1, threshold=0.3,
        passed=passed, reason="too alike", changes=wanted,
    )  # fmt: skip


@given(start=adaptations(), asked=st.lists(changes, max_size=6))
def test_changes_stay_in_bounds_and_are_told_exactly(
    start: Adaptation, asked: list[Change]
) -> None:
    after, applied = adapt(start, [failed(change) for change in asked])
    assert Adaptation.model_validate(after.model_dump()) == after
    told = start
    for change in applied:
        assert getattr(told, change.setting) == change.before != change.after
        told = told.model_copy(update={change.setting: change.after})
    assert told == after


@given(start=adaptations(), phase=st.sampled_from(PHASES))
def test_a_phase_has_valid_numbers_under_any_adaptation(start: Adaptation, phase: str) -> None:
    numbers = effective(RunConfig(), phase, start)
    assert type(numbers).model_validate(numbers.model_dump()) == numbers


@given(start=adaptations(), asked=st.lists(changes, max_size=3))
def test_another_try_is_always_another_niche(start: Adaptation, asked: list[Change]) -> None:
    after, applied = reshaped(start, [failed(change) for change in asked], "progress")
    assert after != start
    assert applied
    assert Adaptation.model_validate(after.model_dump()) == after


def test_verdicts_that_passed_change_nothing() -> None:
    change = Change(setting="mutation_scale", op="scale", value=2.0)
    assert adapt(Adaptation(), [failed(change, passed=True)]) == (Adaptation(), ())


def test_a_cause_is_named_and_the_order_of_verdicts_counts() -> None:
    double = Change(setting="mutation_scale", op="scale", value=2.0)
    more = Change(setting="mutation_scale", op="add", value=0.5)
    after, applied = adapt(Adaptation(), [failed(double), failed(more, name="exhaustion")])
    assert after.mutation_scale == 2.5
    assert [(c.before, c.after, c.cause) for c in applied] == [
        (1.0, 2.0, "population collapse"),
        (2.0, 2.5, "exhaustion"),
    ]


def test_a_change_beyond_its_bound_stops_there() -> None:
    after, applied = adapt(
        Adaptation(), [failed(Change(setting="lr_scale", op="scale", value=0.0))]
    )
    assert after.lr_scale == 0.03
    assert [change.after for change in applied] == [0.03]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_change_that_leads_to_no_number_is_left_out_or_stops_at_its_bound(value: float) -> None:
    after, _ = adapt(Adaptation(), [failed(Change(setting="lr_scale", op="set", value=value))])
    assert after.lr_scale == (1.0 if math.isnan(value) else 4.0)


def test_the_adapted_numbers_reach_the_phase(facts: SimpleNamespace) -> None:
    before = effective(RunConfig(), "cambrian", Adaptation())
    assert before == RunConfig().phase("cambrian")
    shifted = Adaptation(
        mutation_scale=1.5, coupling_scale=0.5, fusion_scale=0.0, rung_scale=0.5,
        extra_depth=1.0, extra_nodes=3.0,
    )  # fmt: skip
    after = effective(RunConfig(), "cambrian", shifted)
    assert (after.mutation, after.coupling, after.rung_steps) == (0.75, 0.25, 18)
    assert (after.max_depth, after.max_nodes) == (6, 15)
    assert (after.fusion.base, after.fusion.max) == (0.0, 0.0)


@given(start=adaptations())
def test_every_number_goes_back_to_where_it_began_and_each_step_is_told(start: Adaptation) -> None:
    now = start
    for _ in range(12):
        after, applied = relaxed(now)
        assert Adaptation.model_validate(after.model_dump()) == after
        told = now
        for change in applied:
            assert change.cause == "relaxation"
            assert getattr(told, change.setting) == change.before != change.after
            told = told.model_copy(update={change.setting: change.after})
        assert told == after
        for name in Adaptation.model_fields:
            rest = getattr(Adaptation(), name)
            assert abs(getattr(after, name) - rest) <= abs(getattr(now, name) - rest)
        now = after
    assert now == Adaptation()


def test_what_is_meant_for_one_attempt_is_gone_after_it() -> None:
    stirred = Adaptation(perturb_consensus=0.05, reset_consensus=1.0, lr_scale=0.5)
    after, _ = relaxed(stirred)
    assert (after.perturb_consensus, after.reset_consensus) == (0.0, 0.0)
    assert after.lr_scale == pytest.approx(0.75)


def test_a_decision_goes_on_from_what_the_phase_changed_itself_and_answers_nothing_twice(
    config: RunConfig, facts: SimpleNamespace
) -> None:
    state, planned = facts.at(config, 2)
    change = Change(setting="mutation_scale", op="scale", value=1.5)
    verdict = facts.verdict("population collapse", False, changes=(change,))
    applied = (AppliedChange(
        setting="mutation_scale", before=1.0, after=1.5, cause="population collapse"
    ),)  # fmt: skip
    response = Response(
        verdict=verdict, applied=applied, generations=1, line_steps=9, skipped=0, clipped=0,
        probed=False,
    )  # fmt: skip
    outcome = facts.outcome(planned, responses=(response,))
    passed, old = facts.verdict("progress", True), verdict.model_copy(update={"answered": True})
    settled = decide(config, state, planned, outcome, (passed, old))
    assert settled.adaptation.mutation_scale == 1.25, "half of the way back, and no further step"
    again = decide(config, state, planned, outcome, (passed, verdict))
    assert again.adaptation.mutation_scale == 1.25 * 1.5
    repeated = decide(config, state, planned, outcome, (facts.verdict("progress", False), old))
    assert repeated.adaptation.mutation_scale > 1.5, "another try begins where this one ended"
