"""Successive halving and its price."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.search import generation_cost, rung_plan

plans = st.fixed_dictionaries(
    {
        "population": st.integers(0, 64),
        "rungs": st.integers(1, 6),
        "rung_steps": st.integers(1, 500),
        "keep_frac": st.floats(0.01, 1.0),
    }
)


@given(plans)
@settings(deadline=None)
def test_totals_double_and_members_never_grow_or_vanish(settings):
    population = settings.pop("population")
    plan = rung_plan(population, **settings)
    if population == 0:
        assert plan == ()
        return
    assert len(plan) == settings["rungs"]
    assert [r.total for r in plan] == [settings["rung_steps"] * 2**k for k in range(len(plan))]
    assert plan[0].members == population
    assert all(a.members >= b.members >= 1 for a, b in pairwise(plan))


@given(plans)
@settings(deadline=None)
def test_the_cost_is_what_each_member_and_the_control_really_train(settings):
    plan = rung_plan(settings.pop("population"), **settings)
    trained = 0
    for member in range(max((r.members for r in plan), default=0)):
        trained += max(r.total for r in plan if member < r.members)
    control = plan[-1].total if plan else 0
    assert generation_cost(plan) == trained + control


def test_the_default_search_halves_as_the_design_says():
    plan = rung_plan(12, rungs=3, rung_steps=35, keep_frac=0.34)
    assert [(r.members, r.steps, r.total) for r in plan] == [
        (12, 35, 35),
        (4, 35, 70),
        (1, 70, 140),
    ]
    assert generation_cost(plan) == 13 * 35 + 5 * 35 + 2 * 70


@pytest.mark.parametrize(
    "bad", [{"rungs": 0}, {"rung_steps": 0}, {"keep_frac": 0.0}, {"population": -1}]
)
def test_numbers_out_of_bounds_are_refused(bad):
    good = {"population": 4, "rungs": 2, "rung_steps": 5, "keep_frac": 0.5}
    arguments = {**good, **bad}
    with pytest.raises(ValueError, match="expected"):
        rung_plan(arguments.pop("population"), **arguments)
