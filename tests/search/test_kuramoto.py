"""The oscillators against theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.search import kuramoto

circle = st.lists(st.floats(-50, 50), min_size=1, max_size=20)
GAMMA = 0.5


def lorentzian(n, gamma=GAMMA):
    # Quantiles instead of draws: the sampling error of heavy tails would hide the theory.
    return gamma * np.tan(np.pi * ((np.arange(n) + 0.5) / n - 0.5))


def settled_r(coupling, *, damping=0.0, n=1000, time=80.0, start=None):
    omegas = np.clip(lorentzian(n), -30, 30)
    rng = np.random.default_rng(5)
    angles = rng.uniform(0, 2 * np.pi, n) if start is None else start(n)
    seen = []
    for i in range(int(time / 0.1)):
        angles = kuramoto.step(angles, omegas, coupling=coupling, damping=damping, dt=0.1)
        if i > time / 0.1 * 0.6:
            seen.append(kuramoto.order_parameter(angles)[0])
    return float(np.mean(seen))


def test_without_coupling_r_stays_near_one_over_the_root_of_n():
    rng = np.random.default_rng(0)
    for n in (10, 100, 1000):
        squares = []
        for _ in range(300):
            angles = kuramoto.integrate(
                rng.uniform(0, 2 * np.pi, n), rng.normal(size=n), coupling=0.0, damping=0.05, n=4
            )
            squares.append(kuramoto.order_parameter(angles)[0] ** 2)
        assert np.mean(squares) * n == pytest.approx(1.0, abs=5 / np.sqrt(300))


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0])
def test_above_the_threshold_r_follows_the_lorentzian_law(ratio):
    assert settled_r(ratio * 2 * GAMMA) == pytest.approx(np.sqrt(1 - 1 / ratio), abs=0.03)


def test_below_the_threshold_the_crowd_is_incoherent_even_if_it_began_together():
    assert settled_r(0.6 * 2 * GAMMA, start=lambda n: np.zeros(n)) < 4 / np.sqrt(1000)


def test_damping_slows_but_leaves_the_locked_state_where_it_was():
    free = settled_r(2 * 2 * GAMMA)
    assert settled_r(2 * 2 * GAMMA, damping=1.0, time=160.0) == pytest.approx(free, abs=0.03)
    early = [
        kuramoto.order_parameter(
            kuramoto.integrate(np.linspace(0, 5, 30), np.zeros(30), coupling=1.0, damping=d, n=8)
        )[0]
        for d in (0.0, 1.0)
    ]
    assert early[1] < early[0]


@given(circle, st.floats(0, 5), st.floats(0, 5))
@settings(deadline=None)
def test_the_velocity_satisfies_the_damped_equation_as_written(angles, coupling, damping):
    theta = np.array(angles)
    omega = np.sin(np.arange(len(theta)))
    v = kuramoto.velocity(theta, omega, coupling=coupling, damping=damping)
    r, psi = kuramoto.order_parameter(theta)
    right = omega + coupling * r * np.sin(psi - theta) - damping * (v - omega.mean())
    assert np.allclose(v, right, atol=1e-7)


def test_the_integrator_is_of_fourth_order():
    omegas = np.array([-0.4, 0.1, 0.5])
    start = np.array([0.0, 1.0, 3.0])

    def end(n):
        theta = start
        for _ in range(n):
            theta = kuramoto.step(theta, omegas, coupling=2.0, damping=0.1, dt=4.0 / n)
        return theta

    exact = end(4000)
    errors = [np.abs(end(n) - exact).max() for n in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)


def test_two_oscillators_lock_at_the_angle_that_theory_gives():
    # Their difference obeys dφ/dt = Δω − K sin φ.
    omegas = np.array([-0.2, 0.2])
    end = kuramoto.integrate([0.0, 1.0], omegas, coupling=0.8, damping=0.0, n=400)
    assert np.sin(end[1] - end[0]) == pytest.approx(0.4 / 0.8, abs=1e-6)


@given(circle, st.floats(0, 60), st.floats(0, 5))
@settings(deadline=None)
def test_strong_coupling_never_breaks_the_integration(angles, coupling, damping):
    omegas = kuramoto.natural_frequencies(np.arange(len(angles)))
    end = kuramoto.integrate(angles, omegas, coupling=coupling, damping=damping, n=3)
    assert ((end >= 0) & (end < 2 * np.pi)).all()


def test_equal_rates_have_equal_frequencies_and_unknown_rates_are_slowest():
    assert (kuramoto.natural_frequencies([0.1 + 0.2, 0.3, 0.3]) == 0).all()
    assert (kuramoto.natural_frequencies([np.nan, np.nan]) == 0).all()
    found = kuramoto.natural_frequencies([0.01, 0.02, 0.03, np.nan, 9.0])
    largest = kuramoto.FREQUENCY_SPREAD * kuramoto.MAX_DEVIATION
    assert found[3] == -largest
    assert found[4] == largest
    assert (np.diff(found[:3]) > 0).all()


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(0.001, 1000))
@settings(deadline=None)
def test_frequencies_do_not_depend_on_the_unit_of_the_rates(rates, unit):
    values = np.round(rates, 3)
    once = kuramoto.natural_frequencies(values)
    assert np.allclose(kuramoto.natural_frequencies(values * unit), once, atol=1e-6)


def test_coupling_of_the_phases_leads_from_incoherence_to_locking():
    rng = np.random.default_rng(1)

    def mean_r(coupling):
        found = []
        for _ in range(20):
            omegas = kuramoto.natural_frequencies(rng.normal(size=50))
            angles = rng.uniform(0, 2 * np.pi, 50)
            end = kuramoto.integrate(angles, omegas, coupling=coupling, damping=0.05, n=160)
            found.append(kuramoto.order_parameter(end)[0])
        return np.mean(found)

    primordial, cambrian, oxidation = mean_r(0.3), mean_r(0.5), mean_r(0.8)
    assert primordial < 0.35 < cambrian < oxidation
    assert oxidation > 0.85


@given(circle)
@settings(deadline=None)
def test_the_largest_gap_is_between_an_even_share_and_the_whole_circle(angles):
    gap = kuramoto.largest_gap(angles)
    assert 2 * np.pi / len(angles) - 1e-9 <= gap <= 2 * np.pi + 1e-9


def test_gaps_of_known_arrangements():
    assert kuramoto.largest_gap([0, np.pi / 2, np.pi]) == pytest.approx(np.pi)
    assert kuramoto.largest_gap([0.1, 2 * np.pi - 0.1]) == pytest.approx(2 * np.pi - 0.2)
    assert kuramoto.largest_gap([1.0]) == 2 * np.pi


@given(circle)
@settings(deadline=None)
def test_the_pull_lies_between_base_and_top_and_is_strongest_with_the_crowd(angles):
    pulls = kuramoto.pull(angles, 0.01, 0.03)
    assert (pulls >= 0.01 - 1e-12).all()
    assert (pulls <= 0.03 + 1e-12).all()
    _, psi = kuramoto.order_parameter(angles)
    assert pulls[np.argmax(np.cos(np.array(angles) - psi))] == pytest.approx(pulls.max())


def test_a_locked_crowd_is_pulled_with_the_top_strength():
    assert np.allclose(kuramoto.pull([2.0, 2.0, 2.0], 0.01, 0.03), 0.03)


@pytest.mark.parametrize(("e", "alpha"), [(0.01, 0.005), (0.02, 0.012), (0.03, 0.029), (0.02, 0.0)])
def test_the_hidden_learning_rate_factor_is_what_a_drifting_pair_shows(e, alpha):
    p = s = 0.0
    before = 0.0
    for _ in range(4000):
        before = p
        p += 1.0
        s += e * (p - s)
        p += alpha * (s - p)
    assert kuramoto.hidden_lr_factor(e, alpha) == pytest.approx(p - before, rel=0.03)
