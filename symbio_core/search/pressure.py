"""Exploration and convergence pressures that size the population and the mutation rate. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from symbio_core.records import Record

COOLDOWN = 2
"""Generations a noticeable change is given to show its effect before the next."""
SMALLEST_SHARE = 2 / 3
"""Share of a phase's population that convergence may shrink it to."""
MUTATION_SWING = 0.5
"""How far pressure moves a phase's mutation rate either way, as a share of it."""
_LONG_PLATEAU = 3
_NOTICEABLE = 0.1


class Pressure(Record):
    """Two forces on the population; both 0 leaves a phase's own numbers as they are."""

    exploration: float = Field(0.0, ge=0.0, le=1.0)
    """Grows while nothing better is found, and with alarms (0..1)."""
    convergence: float = Field(0.0, ge=0.0, le=1.0)
    """Grows while the loss falls (0..1)."""
    cooldown: int = Field(0, ge=0)
    """Generations until the next change."""

    @property
    def net(self) -> float:
        """Exploration minus convergence (−1..1)."""
        return self.exploration - self.convergence


def update(
    pressure: Pressure,
    *,
    slope: float,
    flat: float,
    plateau_gap: int,
    alarms: Sequence[str] = (),
    cooldown: int = COOLDOWN,
) -> Pressure:
    """Return the pressures after a generation.

    Exploration heads for plateau_gap/3 (at most 1), and for 1 under an alarm; convergence heads
    for how steeply the loss falls, measured in ``flat``, and for 0 under an alarm. Both move half
    of the way. After a noticeable change nothing moves for ``cooldown`` generations, so that an
    effect is seen before it is corrected; an alarm that is new to a resting pressure waits too.

    Args:
        pressure: as it was.
        slope: change of the best loss over the generation (nats a generation); negative is better.
        flat: fall that counts as steep (nats, > 0): what chance alone could show.
        plateau_gap: generations since the last find.
        alarms: monitors that fired, in words.
        cooldown: generations to wait after a noticeable change.
    """
    if pressure.cooldown > 0:
        return pressure.model_copy(update={"cooldown": pressure.cooldown - 1})
    steepness = 0.0 if math.isnan(slope) else min(1.0, max(0.0, -slope / max(flat, 1e-12)))
    exploring = 1.0 if alarms else min(1.0, max(0, plateau_gap) / _LONG_PLATEAU)
    converging = 0.0 if alarms else steepness
    moved = Pressure(
        exploration=(pressure.exploration + exploring) / 2,
        convergence=(pressure.convergence + converging) / 2,
    )
    rests = abs(moved.net - pressure.net) >= _NOTICEABLE
    return moved.model_copy(update={"cooldown": cooldown if rests else 0})


def population(pressure: Pressure, top: int) -> int:
    """Return the candidates of the next generation.

    Never above ``top``, for which the budget was planned; convergence shrinks it to two thirds at
    the least, and never below two.
    """
    least = min(top, max(2, math.ceil(SMALLEST_SHARE * top)))
    return top - round((top - least) * max(0.0, -pressure.net))


def mutation(pressure: Pressure, rate: float) -> float:
    """Return the mutation probability of the next generation (0..1), within ±50% of ``rate``."""
    return min(1.0, max(0.0, rate * (1.0 + MUTATION_SWING * pressure.net)))
