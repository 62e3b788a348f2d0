from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import BudgetTooSmall
from symbio_core.lifecycle import (
    check_budget,
    confirm_steps_for,
    generation_price,
    plan,
    smallest_budget,
    steps_for,
)
from symbio_core.profiles import PROFILES
from symbio_core.records import PhasePlan, RunState

SEARCHING = ("primordial", "cambrian", "oxidation")
share = st.integers(1, 100).map(lambda percent: percent / 100)


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    changes: dict[str, Any] = {
        "search.exploration_frac": draw(share),
        "search.rungs": draw(st.integers(1, 4)),
        "confirm.steps_frac": draw(st.integers(1, 60)) / 100,
        "confirm.seeds": draw(st.integers(2, 6)),
        "confirm.warm_steps": draw(st.integers(0, 80)),
    }
    for phase in PHASES:
        changes[f"phases.{phase}.share"] = draw(share)
    for phase in SEARCHING:
        changes[f"phases.{phase}.population"] = draw(st.sampled_from([0, 2, 5, 12]))
        changes[f"phases.{phase}.rung_steps"] = draw(st.integers(1, 60))
    if changes["search.rungs"] == 1:
        changes["without"] = ("fusion", "kuramoto")
    return changed(RunConfig(), changes)


def untroubled(config: RunConfig) -> list[PhasePlan]:
    """Live a life in which every phase passes at once and spends all it may."""
    plans = []
    state = RunState()
    while (planned := plan(config, state)) is not None:
        plans.append(planned)
        state = RunState(
            phase_index=state.phase_index + 1,
            steps_spent=state.steps_spent + planned.steps,
            confirmed=state.confirmed or planned.confirm_steps > 0,
        )
    return plans


def pays_for_all(config: RunConfig) -> bool:
    """Whether each search phase can buy a whole generation, and the final its ten steps."""
    for planned in untroubled(config):
        numbers = config.phase(planned.phase)
        cost = generation_price(config, numbers, numbers.population)
        if cost > config.search.exploration_frac * (planned.steps - planned.confirm_steps):
            return False
        if planned.phase == "oxidation":
            final = planned.confirm_steps - 2 * config.confirm.warm_steps
            if final // (4 * config.confirm.seeds) < 10:
                return False
    return len(untroubled(config)) == len(PHASES)


@settings(max_examples=60, deadline=None)
@given(config=configs())
def test_the_smallest_budget_pays_for_all_and_one_step_less_does_not(config: RunConfig) -> None:
    smallest = smallest_budget(config)
    enough = changed(config, {"budget.steps": smallest})
    short = changed(config, {"budget.steps": smallest - 1})

    check_budget(enough)
    assert pays_for_all(enough)
    with pytest.raises(BudgetTooSmall, match=f"use --budget {smallest}$"):
        check_budget(short)
    assert not pays_for_all(short)


@settings(max_examples=60, deadline=None)
@given(config=configs(), steps=st.integers(1, 20_000))
def test_an_untroubled_life_spends_exactly_the_budget(config: RunConfig, steps: int) -> None:
    config = changed(config, {"budget.steps": steps})
    spent = sum(planned.steps for planned in untroubled(config))
    assert spent <= steps
    if pays_for_all(config):
        assert spent == steps


def test_the_message_says_what_is_short_and_what_would_do(config: RunConfig) -> None:
    with pytest.raises(BudgetTooSmall) as error:
        check_budget(changed(config, {"budget.steps": 2000}))
    text = str(error.value)
    assert text.startswith("budget of 2000 steps is too small: ")
    assert "a generation costs" in text
    assert text.endswith(f"use --budget {smallest_budget(config)}")
    with pytest.raises(BudgetTooSmall, match="confirmation could train 4 contenders"):
        check_budget(changed(config, {"budget.steps": 60}))


def test_every_profile_can_pay_for_itself() -> None:
    for make in PROFILES.values():
        check_budget(make())


def test_a_search_that_is_switched_off_needs_no_generation(config: RunConfig) -> None:
    off = changed(config, {"search.exploration_frac": 0.0, "confirm.warm_steps": 0})
    assert smallest_budget(off) == 800  # 15% of it are 10 steps for 4 contenders and 3 seeds
    assert smallest_budget(off) < smallest_budget(config)


def test_a_phase_gets_its_share_of_what_is_left(config: RunConfig) -> None:
    config = changed(config, {"confirm.warm_steps": 0})
    assert steps_for(config, RunState()) == 340  # 4% of 10 000 less 15% for the confirmation
    later = RunState(phase_index=4, steps_spent=6000, confirmed=True)
    assert steps_for(config, later) == 3000  # 30 of 40 parts of 4000
    assert steps_for(config, later.model_copy(update={"steps_spent": 8000})) == 1500
    assert steps_for(config, later.model_copy(update={"phase_index": 5})) == 4000
    assert steps_for(config, later.model_copy(update={"phase_index": 6})) == 0


def test_the_confirmation_is_kept_aside_until_it_is_held(config: RunConfig) -> None:
    kept = 1500 + 2 * config.confirm.warm_steps
    late = RunState(phase_index=3, steps_spent=5000)
    assert confirm_steps_for(config, RunState(phase_index=2)) == 0
    assert confirm_steps_for(config, late) == kept
    again = late.model_copy(update={"confirmed": True})
    assert confirm_steps_for(config, again) == 0
    assert steps_for(config, late) - kept == int((5000 - kept) * 16 / 56)
    assert steps_for(config, again) == int(5000 * 16 / 56)


@pytest.mark.parametrize("left", [0, 1, 700, 1579, 1580, 1581])
def test_a_reserve_that_is_no_longer_there_is_not_promised(config: RunConfig, left: int) -> None:
    short = RunState(phase_index=3, steps_spent=10_000 - left)
    assert confirm_steps_for(config, short) == min(left, 1580)
    assert steps_for(config, short) <= left
    assert steps_for(config, short.model_copy(update={"phase_index": 2})) == max(0, left - 1580)


def test_a_tiny_share_still_gets_a_step(config: RunConfig, facts: SimpleNamespace) -> None:
    config = changed(config, {"phases.abiogenesis.share": 1e-9})
    planned = plan(config, RunState())
    assert planned is not None
    assert planned.steps == 1
    assert planned.begin == 0.0


def test_phases_cover_the_schedule_without_gaps(config: RunConfig) -> None:
    plans = untroubled(config)
    assert [planned.phase for planned in plans] == list(PHASES)
    assert plans[0].begin == 0.0
    assert plans[-1].end == pytest.approx(1.0)
    for before, after in pairwise(plans):
        assert before.end == pytest.approx(after.begin)
