"""final-report.json: whole, honest, valid and the same twice."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import symbio_core.report
from symbio_core.records import Attempt, Interval
from symbio_core.report import FinalReport, json_schema, schema_text, to_json
from symbio_core.report.schema import Span

KINDS = ["evolved wins", "fixed wins", "no difference"]
SCHEMA_FILE = Path(symbio_core.report.__file__).with_name("final-report.schema.json")


def changed(record, **changes):
    return record.model_copy(update=changes)


def test_the_committed_schema_is_current():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "write schema_text() of symbio_core.report to final-report.schema.json again"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_satisfies_the_committed_schema(life, confirmed, kind):
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(to_json(life.report(confirmed(kind)))), schema)


def test_the_schema_refuses_unknown_keys_and_missing_ones(life):
    data = json.loads(to_json(life.report()))
    for broken in (data | {"surprise": 1}, {k: v for k, v in data.items() if k != "verdict"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, json_schema())


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_a_report_reads_back_from_its_own_json(life, confirmed, kind):
    report = life.report(confirmed(kind) if kind else None)
    again = FinalReport.model_validate_json(to_json(report))
    assert again == report
    assert to_json(again) == to_json(report)


def test_a_report_cannot_be_changed(life):
    with pytest.raises(ValidationError):
        life.report().verdict = "won"


def test_a_run_that_ended_before_the_final_says_that_nothing_was_measured(life):
    early = life.report(
        attempts=life.attempts[:2],
        state=changed(life.state, finished="the cap of 300 s was reached"),
    )
    assert early.confirmation is None
    assert early.verdict.startswith("Not measured")
    assert "the cap of 300 s was reached" in early.verdict
    assert "primordial" in early.verdict
    assert "beats GELU, SiLU and ReLU²" in early.verdict
    assert "\n" not in early.verdict


def test_a_run_without_a_single_phase_still_has_a_report(life):
    empty = life.report(attempts=(), state=changed(life.state, finished="interrupted"))
    assert empty.totals.steps.total == 0
    assert empty.totals.tokens_per_s is None
    assert "no phase was completed (interrupted)" in empty.verdict


def test_an_oxidation_that_stopped_early_is_named_as_the_reason(life):
    last = life.attempts[5]
    outcome = changed(last.outcome, stopped="seconds", reason="its time was up")
    attempts = (*life.attempts[:5], changed(last, outcome=outcome))
    assert "oxidation stopped early (its time was up)" in life.report(attempts=attempts).verdict


def test_a_final_with_a_loss_that_is_not_finite_is_no_answer(life, confirmed):
    good = confirmed("fixed wins")
    burst = changed(good.contenders[0], nats=(float("nan"), 3.7, 3.7))
    report = life.report(changed(good, contenders=(burst, *good.contenders[1:])))
    assert report.confirmation is None
    assert burst.formula in report.no_confirmation
    assert report.verdict.startswith("Not measured")
    jsonschema.validate(json.loads(to_json(report)), json_schema())


def test_numbers_that_are_not_finite_become_null(life):
    first = life.attempts[0]
    end = changed(first.outcome.points[-1], val_nats=float("inf"), train_nats=float("nan"))
    verdict = changed(first.verdicts[0], value=float("nan"), interval=_broken())
    outcome = changed(first.outcome, points=(*first.outcome.points[:-1], end))
    attempts = (changed(first, outcome=outcome, verdicts=(verdict,)), *life.attempts[1:])
    report = life.report(attempts=attempts)
    data = json.loads(to_json(report), parse_constant=_refuse)
    assert data["phases"][0]["val_nats"]["end"] is None
    assert data["phases"][0]["train_nats"]["end"] is None
    assert data["phases"][0]["verdicts"][0]["value"] is None
    assert data["efficiency"][0]["fall_nats"] is None
    jsonschema.validate(data, json_schema())


def _broken() -> Interval:
    return Interval(value=0.0, low=float("-inf"), high=float("inf"))


def _refuse(constant: str):
    raise AssertionError(f"{constant} is no JSON")


def test_totals_are_the_sums_of_the_journal(life, confirmed):
    report = life.report(confirmed("evolved wins"))
    spent = sum(a.outcome.steps for a in life.attempts)
    assert report.totals.steps.total == spent == life.state.steps_spent
    assert sum(p.steps.total for p in report.phases) == spent
    assert sum(e.seconds for e in report.efficiency) == pytest.approx(report.totals.seconds)
    assert report.totals.candidates == sum(p.candidates for p in report.phases) == 17
    assert [p.decision.kind for p in report.phases].count("rollback") == report.totals.rollbacks


def test_gpu_seconds_are_counted_on_a_gpu_only(life):
    on_gpu = life.report(environment=changed(life.environment, device="cuda:0"))
    assert life.report().totals.gpu_seconds == 0.0
    assert on_gpu.totals.gpu_seconds == on_gpu.totals.seconds > 0.0
    assert all(e.gpu_seconds == e.seconds for e in on_gpu.efficiency)


def test_efficiency_is_the_fall_that_was_kept_over_the_time_of_all_tries(life):
    report = life.report()
    cambrian = next(e for e in report.efficiency if e.phase == "cambrian")
    first, second = (a for a in life.attempts if a.outcome.phase == "cambrian")
    assert first.decision.kind == "repeat"
    fall = second.outcome.points[0].val_nats - second.outcome.points[-1].val_nats
    assert cambrian.attempts == 2
    assert cambrian.fall_nats == pytest.approx(fall)
    seconds = first.outcome.seconds + second.outcome.seconds
    assert cambrian.fall_nats_per_s == pytest.approx(fall / seconds)


def test_a_phase_that_was_only_thrown_away_brought_nothing(life):
    report = life.report(attempts=life.attempts[:3])
    assert next(e for e in report.efficiency if e.phase == "cambrian").fall_nats == 0


def test_the_winner_is_the_one_of_the_final_or_else_what_ships(life, confirmed):
    assert life.report(confirmed("fixed wins")).winner == confirmed("fixed wins").winner
    assert life.report().winner == life.shipped.formula


numbers = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@given(numbers, numbers)
def test_a_fall_is_known_only_where_both_ends_are(start, end):
    fall = Span(start=start, end=end).fall
    assert (fall is None) == (start is None or end is None)
    assert fall is None or fall == start - end


def test_attempts_read_back_from_json_make_the_same_report(life):
    again = tuple(Attempt.model_validate_json(a.model_dump_json()) for a in life.attempts)
    assert to_json(life.report(attempts=again)) == to_json(life.report())
