"""What the run saw in itself, which number it moved, and which phases felt it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.config import RunConfig
from symbio_core.lifecycle import effective
from symbio_core.records import Adaptation, AppliedChange, PhasePlan
from symbio_core.report import dials, gate_tables, niche
from symbio_core.report.cells import FIRM, way
from symbio_core.report.deciding import decisions


def changed(record, **changes):
    return record.model_copy(update=changes)


def plain(page: str) -> str:
    return page.replace(FIRM, " ")


def trail_of(life, **changes) -> str:
    return plain(niche.trail(life.report(**changes).applied))


def test_a_change_tells_what_was_seen_what_moved_and_where_it_was_felt(life):
    first = life.report().applied[0]
    assert (first.phase, first.attempt) == ("cambrian", 2)
    assert first.seen.name == "population collapse"
    assert first.seen.interval.low < first.seen.value < first.seen.interval.high
    page = trail_of(life)
    assert "population collapse: The functional diversity (0..1) is 0.26" in page
    assert "functional diversity (0..1): 0.26 (0.25 to 0.27), 95% sure; limit 0.3" in page
    assert "mutation rate × 1.5\n(mutation_scale 1 → 1.5)" in page
    assert "oxidation: 0.30 → 0.45" in page


def test_two_verdicts_that_move_one_number_read_as_a_chain(life):
    one, two = life.report().applied[:2]
    assert one.change.after == two.change.before
    assert [e.after for e in one.effects] == [e.before for e in two.effects]
    assert "oxidation: 0.45 → 0.56" in trail_of(life)


def test_a_verdict_that_moved_several_numbers_is_told_once(life):
    page = trail_of(life)
    assert page.count("order parameter r (0..1): 0.93") == 1
    assert page.count("consensus stagnation, as above") == 2


def test_what_was_felt_is_what_the_phase_ran_under(life):
    settings = {"mutation_scale": "mutation", "extra_nodes": "max_nodes"}
    last = {c.change.setting: c for c in life.report().applied if c.change.cause != "relaxation"}
    for setting, number in settings.items():
        assert [(e.phase, e.attempt) for e in last[setting].effects] == [
            ("oxidation", 1),
            ("oxidation", 2),
        ]
        for effect in last[setting].effects:
            plan = next(
                a.plan
                for a in life.attempts
                if (a.plan.phase, a.plan.attempt) == (effect.phase, effect.attempt)
            )
            assert effect.after == getattr(
                effective(life.config, plan.phase, plan.adaptation), number
            )


def test_a_number_that_only_the_search_uses_is_not_felt_without_one(life):
    settings = {c.change.setting: {e.phase for e in c.effects} for c in life.report().applied}
    assert "endosymbiosis" not in settings["mutation_scale"]
    attempts = (*life.attempts[:4], *life.attempts[6:])
    assert "no later phase that uses the number" in trail_of(life, attempts=attempts)


def test_a_change_is_felt_until_the_number_moves_again(life):
    rates = [c for c in life.report().applied if c.change.setting == "lr_scale"]
    assert [c.change.cause for c in rates] == ["consensus stagnation", "relaxation"]
    assert [e.phase for e in rates[0].effects] == ["oxidation", "oxidation", "endosymbiosis"]
    assert [e.phase for e in rates[1].effects] == ["homeostasis"]


def test_a_number_that_comes_back_to_the_same_place_is_another_changes_doing(life):
    def at(attempt, lr_scale):
        adaptation = changed(attempt.plan.adaptation, lr_scale=lr_scale)
        return changed(attempt, plan=changed(attempt.plan, adaptation=adaptation))

    places = [1.0, 1.0, 1.0, 1.0, 0.5, 0.75, 0.5, 0.5]
    attempts = tuple(at(a, place) for a, place in zip(life.attempts, places, strict=True))
    rate = next(c for c in life.report(attempts=attempts).applied if c.change.after == 0.5)
    assert [(e.phase, e.attempt) for e in rate.effects] == [("oxidation", 1)]


def test_phases_that_felt_the_same_are_told_together(life):
    assert "oxidation, endosymbiosis: 0.0020 → 0.0010" in trail_of(life)
    first, second, *rest = life.attempts
    halved = [changed(a, plan=changed(a.plan, lr_scale=0.5)) for a in (second, *rest)]
    neutral_ones = [
        changed(a, plan=changed(a.plan, adaptation=Adaptation())) for a in (first, *halved)
    ]
    page = trail_of(life, attempts=tuple(neutral_ones))
    assert "primordial to homeostasis: 0.0020 → 0.0010" in page


def test_numbers_on_their_way_back_are_folded_and_said_to_be_nobodys_wish(life):
    page = trail_of(life)
    assert "Numbers on their way back to neutral (1)" in page
    assert page.index("mutation rate") < page.index("<details>") < page.index("relaxation:")


def test_a_learning_rate_halved_after_a_divergence_is_in_the_trail(life):
    first, second, *rest = life.attempts
    halved = changed(second, plan=changed(second.plan, lr_scale=0.5))
    attempts = (first, halved, *(changed(a, plan=changed(a.plan, lr_scale=0.5)) for a in rest))
    found = life.report(attempts=attempts).applied[0]
    assert found.change.cause == "divergence"
    assert found.reason == first.decision.reason
    assert len(found.effects) == len(life.attempts) - 1
    assert found.effects[0].after == found.effects[0].before / 2
    assert "peak learning rate × 0.5" in trail_of(life, attempts=attempts)


def test_a_run_that_moved_nothing_says_so(life):
    still = tuple(
        changed(a, decision=changed(a.decision, applied=(), adaptation=Adaptation()))
        for a in life.attempts
    )
    report = life.report(attempts=still)
    assert report.applied == ()
    assert "No verdict moved a number in this run." in decisions(report)


def test_niche_construction_switched_off_is_said(life):
    report = life.report(config=changed(life.config, without=("niche",)))
    assert "Niche construction was switched off in this run" in decisions(report)


def test_every_setting_that_verdicts_may_move_has_a_name_for_people():
    assert set(Adaptation.model_fields) <= set(dials.DIALS)


def neutral(setting: str) -> float:
    return float(getattr(Adaptation(), setting))


@given(
    st.sampled_from(sorted(Adaptation.model_fields)),
    st.sampled_from(["cambrian", "oxidation"]),
)
def test_every_dial_shows_the_phase_as_it_is_at_its_neutral_place(setting, phase):
    plan = PhasePlan(phase=phase, attempt=1, start=None, steps=1, begin=0.0, end=1.0)
    config = RunConfig()
    shown = dials.value_in(config, plan, setting, neutral(setting))
    low, high = (
        next(getattr(m, end) for m in Adaptation.model_fields[setting].metadata if hasattr(m, end))
        for end in ("ge", "le")
    )
    assert shown is not None
    moved = {dials.value_in(config, plan, setting, end) for end in (low, high)}
    assert moved - {shown}, "a dial that cannot move shows nothing"


def test_a_phase_that_does_not_use_a_number_does_not_feel_it():
    plan = PhasePlan(phase="cambrian", attempt=1, start=None, steps=1, begin=0.0, end=1.0)
    first = changed(plan, phase="primordial")
    config = RunConfig()
    assert dials.value_in(config, plan, "coupling_scale", 0.5) == 0.25
    assert dials.value_in(config, first, "coupling_scale", 0.5) is None, "fresh members are apart"
    assert dials.value_in(config, first, "mutation_scale", 0.5) == 0.4
    for off in ("search", "fusion", "kuramoto"):
        without = changed(config, without=(off,))
        assert dials.value_in(without, plan, "coupling_scale", 0.5) is None, off
        assert dials.value_in(without, plan, "lr_scale", 0.5) == config.optimiser.peak_lr / 2


@pytest.mark.parametrize(
    ("setting", "before", "after", "told"),
    [
        ("mutation_scale", 1.0, 1.25, "mutation rate × 1.25"),
        ("extra_nodes", 0.0, -2.0, "largest tree (nodes) −2"),
        ("immigrants", 0.1, 0.3, "share of candidates drawn afresh 10% → 30%"),
        ("open_reserve", 0.0, 1.0, "reserve pool open no → yes"),
        ("something_new", 1.0, 2.0, "something new 1 → 2"),
    ],
)
def test_changes_are_told_as_people_say_them(setting, before, after, told):
    change = AppliedChange(setting=setting, before=before, after=after, cause="test")
    assert plain(dials.in_words(change)) == told


finite = st.floats(-1e6, 1e6)


@given(finite, finite)
def test_two_numbers_that_differ_are_told_apart(before, after):
    left, right = way(before, after).split("→")
    if abs(before - after) > 1e-6:
        assert left.strip() != right.strip()


def test_all_levels_and_plateaus_are_reported_and_the_quiet_ones_folded(life):
    page = plain(decisions(life.report()))
    assert set(gate_tables.MEANINGS) == {v.name for v in life.attempts[0].verdicts}
    folded = page[page.index("Looked for and never seen (8 of 12 kinds)") :]
    folded = folded[: folded.index("</details>")]
    seen = {"progress", "regression", "population collapse", "consensus stagnation"}
    for name, meaning in gate_tables.MEANINGS.items():
        assert (name in folded) == (name not in seen), name
        assert (meaning in folded) == (name not in seen), name


def test_a_concern_is_followed_by_what_the_run_did_about_it(life):
    page = plain(gate_tables.concerns(life.report()))
    rows = [row for row in page.split("<tr>") if "population collapse" in row]
    assert len(rows) == 1
    assert "mutation rate × 1.5" in rows[0]
    assert "decision: repeat" in next(row for row in page.split("<tr>") if ">progress<" in row)
    assert "decision: rollback" in next(row for row in page.split("<tr>") if ">regression<" in row)


def test_alarms_are_shown_where_they_rang_and_nowhere_else(life):
    assert "the gradient norm jumped at step 1080" in gate_tables.alarms(life.report().phases)
    quiet = tuple(changed(p, alarms=()) for p in life.report().phases)
    assert gate_tables.alarms(quiet) == ""
