"""Fusion, inherited weights and ecological pressure: in numbers and in plain words."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest

from symbio_core.records import Generation
from symbio_core.report import json_schema, to_json
from symbio_core.report.cells import FIRM
from symbio_core.report.fusion import fusion, transfers
from symbio_core.report.searched import fusion as summary_of
from symbio_core.report.tables import economy, efficiency


def changed(record, **changes):
    return record.model_copy(update=changes)


def generations(life) -> list[Generation]:
    return [g for a in life.attempts for g in a.outcome.generations]


def without_fusion(life):
    nobody = {"fusions_accepted": 0, "fusions_refused": 0, "fusion": None, "transfers": ()}
    return tuple(
        changed(
            a,
            outcome=changed(
                a.outcome, generations=tuple(changed(g, **nobody) for g in a.outcome.generations)
            ),
        )
        for a in life.attempts
    )


def test_fusion_is_summed_over_the_generations_of_an_attempt(life):
    phase = next(p for p in life.report().phases if p.phase == "primordial")
    found = [g for g in generations(life) if g.phase == "primordial"]
    assert phase.fusion.accepted == sum(g.fusions_accepted for g in found) == 6
    assert phase.fusion.refused == sum(g.fusions_refused for g in found) == 2
    for rung, r in enumerate(phase.fusion.sync):
        assert r == pytest.approx(sum(g.sync[rung] for g in found) / len(found))
    assert phase.fusion.widest_gap_rad == max(gap for g in found for gap in g.angle_gaps)


def test_the_hidden_learning_rate_counts_accepted_pulls_only(life):
    one = changed(generations(life)[0], fusions_accepted=1, hidden_lr_factor=0.8)
    two = changed(one, fusions_accepted=3, hidden_lr_factor=0.6)
    idle = changed(one, fusions_accepted=0, hidden_lr_factor=1.0)
    assert summary_of([one, two, idle]).hidden_lr_factor == pytest.approx(0.65)
    assert summary_of([idle]).hidden_lr_factor is None


def test_generations_of_different_height_are_averaged_rung_by_rung(life):
    one = changed(generations(life)[0], sync=(0.2,))
    two = changed(one, sync=(0.4, 0.9))
    assert summary_of([one, two]).sync == pytest.approx((0.3, 0.9))


def test_a_trap_is_told_in_plain_words(life):
    page = fusion(life.report().phases)
    trapped = next(row for row in page.split("<tr>") if "cambrian (try 2)" in row and "5.10" in row)
    assert "5.10 → 4.90 → 4.60" in trapped
    assert "the average is no better than the best member" in trapped
    assert "being pulled cost 0.0400 nats a token" in trapped
    assert "not sure" not in trapped


def test_a_harmless_pull_is_told_as_not_sure(life):
    page = fusion(life.report().phases)
    row = next(r for r in page.split("<tr>") if "oxidation (try 2)" in r and "5.00" in r)
    assert "the average is better than the best member" in row
    assert "being pulled saved 0.0030 nats a token, which is not sure" in row


def test_phases_tell_their_synchrony_gap_and_pulls(life):
    page = fusion(life.report().phases)
    row = next(r for r in page.split("<tr>") if ">cambrian (try 2)<" in r)
    assert "0.78 → 0.93" in row
    assert f"{math.degrees(2.1):.0f}°" in row
    assert "× 0.994" in row
    assert "members run as one at the end; 1 of 4 pulls would have done harm" in row


def test_nothing_is_shown_where_nobody_was_fused_or_tested(life):
    report = life.report(attempts=without_fusion(life))
    assert fusion(report.phases) == ""
    assert transfers(report.phases) == ""
    assert all(p.fusion is None and p.transfers == () for p in report.phases)


def test_a_child_that_its_inheritance_holds_back_is_told_so(life):
    page = transfers(life.report().phases)
    assert "silu(x)·relu(x)" in page
    assert "inherited weights hold it back by 0.0600 nats a token" in page
    assert "not sure" not in page


def test_checks_that_are_not_finite_are_null_and_still_render(life):
    broken = without_fusion(life)
    source = next(g for g in generations(life) if g.fusion is not None)
    nan = changed(source.fusion.consensus_nats, value=float("nan"))
    check = changed(source.fusion, consensus_nats=nan, entropy_nats=(float("inf"), 1.0))
    attempt = broken[1]
    spoiled = tuple(changed(g, fusion=check) for g in attempt.outcome.generations)
    attempts = (
        broken[0],
        changed(attempt, outcome=changed(attempt.outcome, generations=spoiled)),
        *broken[2:],
    )
    report = life.report(attempts=attempts)
    jsonschema.validate(json.loads(to_json(report)), json_schema())
    assert report.phases[1].fusion.checks[0].over_best_nats is None
    assert "being pulled cost" in fusion(report.phases)


def test_every_scored_candidate_has_its_economy_in_the_json(life):
    report = life.report()
    scored = [m for g in generations(life) for m in g.members if m.score is not None]
    assert len(report.candidates) == len(scored) == report.totals.candidates
    for told, member in zip(report.candidates, scored, strict=True):
        assert told.formula == member.candidate.formula
        assert told.gain_nats == -member.score.loss_nats.value
        assert told.gain_same_cost_nats == -member.score.judged().value
        assert told.gain_nats_per_s == pytest.approx(told.gain_nats / member.score.seconds)


def test_the_best_use_of_time_comes_first_and_each_function_once(life):
    page = economy(life.report())
    assert page.count(">relu(x)²<") == 1
    assert page.index(">relu(x)²<") < page.index(">gelu(x)·relu(x)<") < page.index(">silu(x)<")
    assert "× 1.04" in page


def test_seconds_are_called_by_what_spent_them(life):
    gpu = life.report(environment=changed(life.environment, device="cuda (H100)"))
    for page in (efficiency(gpu), economy(gpu)):
        assert "millinats a GPU-second" in page
    for page in (efficiency(life.report()), economy(life.report())):
        assert "millinats a processor second" in page


def test_no_interval_is_torn_apart_at_the_end_of_a_line(life):
    page = transfers(life.report().phases)
    assert f"+0.0500 (+0.0400{FIRM}to{FIRM}+0.0600)" in page
