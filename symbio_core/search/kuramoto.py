r"""N coupled oscillators that pace the fusion of members. Pure.

Member i has an angle θ_i and a natural frequency ω_i. With the mean field r·e^{iψ} = mean(e^{iθ})
and Ω = mean(ω), damping D ≥ 0 resists every departure of a velocity from the common one:

    dθ_i/dt = ω_i + K·r·sin(ψ − θ_i) − D·(dθ_i/dt − Ω)

The coupling terms sum to zero, so the mean velocity is Ω itself and the equation solves to

    dθ_i/dt = Ω + (ω_i − Ω + K·r·sin(ψ − θ_i)) / (1 + D)

D = 0 is Kuramoto's model; D > 0 slows the approach to the same states, thresholds unchanged.

Source: Kuramoto (1984), Chemical Oscillations, Waves, and Turbulence, section 5.4; Strogatz (2000),
From Kuramoto to Crawford, Physica D 143: the model, its order parameter and mean-field form,
Kc = 2/(π·g(0)), and for Lorentzian frequencies of half width γ: Kc = 2γ, r = √(1 − Kc/K). The
damping term is symbio's own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FREQUENCY_SPREAD = 0.25
"""Robust spread of natural frequencies (rad per unit of time).

For Gaussian frequencies of this spread Kc = 0.40, so that the phases' coupling (0.3, 0.5, 0.8)
leads from incoherence over the threshold to locking."""
MAX_DEVIATION = 3.0
"""Rates further from the median than this many spreads are cut off there."""
STEP_TIME = 0.25
"""Time that passes in one training step: a rung of 20 steps lasts 5 units."""
_LONGEST_MOVE = 0.5
"""Largest (K + spread)·dt of one integration step (rad)."""


def natural_frequencies(rates: npt.ArrayLike) -> Array:
    """Turn members' rates of learning into natural frequencies around 0.

    Args:
        rates: loss fallen a step, shape (n_members,), nats a step; not-a-number counts as slowest.

    Returns:
        Frequencies, shape (n_members,), rad per unit of time: rate minus median, in robust
        spreads, cut at ±`MAX_DEVIATION`, times `FREQUENCY_SPREAD`. Equal rates give zeros.
    """
    values = np.asarray(rates, dtype=np.float64)
    known = np.isfinite(values)
    if not known.any():
        return np.zeros_like(values)
    centre = np.median(values[known])
    away = np.where(known, values - centre, -np.inf)
    spread = 1.4826 * float(np.median(np.abs(away[known]))) or float(np.std(values[known]))
    # Differences of rounding only are no differences: they would be blown up to full spread.
    if spread <= 1e-12 * max(1.0, abs(float(centre))):
        scaled = np.where(known, 0.0, -MAX_DEVIATION)
    else:
        scaled = np.clip(away / spread, -MAX_DEVIATION, MAX_DEVIATION)
    return FREQUENCY_SPREAD * scaled


def velocity(angles: Array, omegas: Array, *, coupling: float, damping: float) -> Array:
    """Return dθ/dt as the module's head defines it, shape (n_members,), rad per unit of time."""
    field = np.exp(1j * angles).mean()
    common = omegas.mean()
    pull_in = coupling * np.imag(field * np.exp(-1j * angles))
    return np.asarray(common + (omegas - common + pull_in) / (1.0 + damping))


def step(angles: Array, omegas: Array, *, coupling: float, damping: float, dt: float) -> Array:
    """Advance the angles by ``dt`` with one classical Runge–Kutta step (order 4)."""
    k1 = velocity(angles, omegas, coupling=coupling, damping=damping)
    k2 = velocity(angles + dt / 2 * k1, omegas, coupling=coupling, damping=damping)
    k3 = velocity(angles + dt / 2 * k2, omegas, coupling=coupling, damping=damping)
    k4 = velocity(angles + dt * k3, omegas, coupling=coupling, damping=damping)
    return np.asarray(angles + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


def integrate(
    angles: npt.ArrayLike,
    omegas: npt.ArrayLike,
    *,
    coupling: float,
    damping: float,
    n: int,
    dt: float = STEP_TIME,
) -> Array:
    """Advance the angles by ``n`` training steps of ``dt`` each.

    Args:
        angles: shape (n_members,), rad.
        omegas: natural frequencies, shape (n_members,), rad per unit of time.
        coupling: K ≥ 0, 1 per unit of time.
        damping: D ≥ 0, no unit.
        n: training steps that pass.
        dt: time a training step takes; it is cut finer where a strong coupling needs that.

    Returns:
        Angles in [0, 2π), shape (n_members,), rad.
    """
    theta = np.asarray(angles, dtype=np.float64)
    omega = np.asarray(omegas, dtype=np.float64)
    if theta.size == 0:
        return theta.copy()
    fastest = (coupling + float(np.max(np.abs(omega - omega.mean())))) / (1.0 + damping)
    finer = max(1, math.ceil(fastest * dt / _LONGEST_MOVE))
    for _ in range(n * finer):
        theta = step(theta, omega, coupling=coupling, damping=damping, dt=dt / finer)
    return _on_circle(theta)


def order_parameter(angles: npt.ArrayLike) -> tuple[float, float]:
    """Return r (0..1) and the mean angle ψ (rad, in −π..π); no oscillators give (0, 0)."""
    theta = np.asarray(angles, dtype=np.float64)
    if theta.size == 0:
        return 0.0, 0.0
    field = complex(np.exp(1j * theta).mean())
    return min(1.0, abs(field)), math.atan2(field.imag, field.real)


def largest_gap(angles: npt.ArrayLike) -> float:
    """Return the widest arc free of oscillators (rad); one oscillator leaves the whole circle.

    2π/N when spread evenly, near 2π when all run together.
    """
    theta = np.sort(_on_circle(np.asarray(angles, dtype=np.float64)))
    if theta.size < 2:
        return 2 * math.pi
    return float(np.max(np.diff(theta, append=theta[0] + 2 * math.pi)))


def pull(angles: npt.ArrayLike, base: float, top: float) -> Array:
    """Return how strongly each member is pulled to the consensus.

    α_i = base + (top − base)·r·(1 + cos(θ_i − ψ))/2: members that run with the crowd, in a crowd
    that runs together, are pulled most.

    Returns:
        Shape (n_members,), share a step, between ``base`` and ``top``.

    Source:
        symbio's own coupling of the order parameter to elastic averaging (Zhang, Choromanska &
        LeCun 2015, arXiv 1412.6651).
    """
    theta = np.asarray(angles, dtype=np.float64)
    r, psi = order_parameter(theta)
    return np.asarray(base + (top - base) * r * (1.0 + np.cos(theta - psi)) / 2.0)


def hidden_lr_factor(rate: float, pull: float) -> float:
    """Return what fusion multiplies the effective learning rate by (0..1).

    In steady drift u the pair s += e(p − s), p += α(s − p) moves at u·e/(e + α): a pull α towards
    a consensus of rate e is a lower learning rate in disguise, and this is by how much.

    Source:
        Derived from the update of elastic averaging with one worker (Zhang, Choromanska & LeCun
        2015, arXiv 1412.6651).
    """
    return 1.0 if pull == 0.0 else rate / (rate + pull)


def _on_circle(angles: Array) -> Array:
    turned = np.mod(angles, 2 * math.pi)
    # np.mod rounds a tiny negative angle up to 2π itself.
    return np.where(turned >= 2 * math.pi, 0.0, turned)
