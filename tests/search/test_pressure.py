"""Pressures move numbers inside their bounds and wait for the effect."""

from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.search import Pressure
from symbio_core.search import pressure as pressures

some = st.builds(
    Pressure,
    exploration=st.floats(0, 1),
    convergence=st.floats(0, 1),
    cooldown=st.integers(0, 3),
)


def after(pressure, times, **signs):
    signs = {"slope": 0.0, "flat": 0.01, "plateau_gap": 0, **signs}
    for _ in range(times):
        pressure = pressures.update(pressure, **signs)
    return pressure


@given(some, st.integers(1, 64), st.floats(0, 1))
@settings(deadline=None)
def test_population_and_mutation_stay_inside_their_bounds(pressure, top, rate):
    size = pressures.population(pressure, top)
    assert min(top, 2) <= size <= top
    assert size >= min(top, 2 * top / 3)
    assert 0.0 <= pressures.mutation(pressure, rate) <= min(1.0, 1.5 * rate) + 1e-12


def test_without_pressure_the_phases_own_numbers_hold():
    assert pressures.population(Pressure(), 12) == 12
    assert pressures.mutation(Pressure(), 0.3) == 0.3


def test_a_falling_loss_shrinks_the_population_and_calms_mutation():
    pressed = after(Pressure(), 12, slope=-0.05)
    assert pressures.population(pressed, 12) == 8
    assert pressures.mutation(pressed, 0.4) < 0.25


def test_a_plateau_restores_the_population_and_raises_mutation():
    pressed = after(after(Pressure(), 12, slope=-0.05), 12, plateau_gap=4)
    assert pressures.population(pressed, 12) == 12
    assert pressures.mutation(pressed, 0.4) > 0.5


def test_an_alarm_turns_convergence_into_exploration():
    pressed = after(Pressure(), 6, slope=-0.05, alarms=("diversity 0.10",))
    assert pressed.exploration > 0.5
    assert pressed.convergence == 0.0


def test_nothing_moves_during_the_cooldown():
    moved = after(Pressure(), 1, plateau_gap=3)
    assert moved.cooldown == pressures.COOLDOWN
    resting = after(moved, pressures.COOLDOWN, slope=-1.0)
    assert (resting.exploration, resting.convergence) == (moved.exploration, moved.convergence)
    assert after(resting, 1, slope=-1.0).convergence > 0


def test_a_quiet_generation_leaves_rest_at_rest():
    assert after(Pressure(), 20) == Pressure()


@given(some, st.floats(-1, 1) | st.just(float("nan")), st.integers(0, 9), st.booleans())
@settings(deadline=None)
def test_pressures_survive_the_journal(pressure, slope, gap, alarm):
    found = pressures.update(
        pressure, slope=slope, flat=0.01, plateau_gap=gap, alarms=["x"] * alarm
    )
    assert Pressure.model_validate_json(found.model_dump_json()) == found
