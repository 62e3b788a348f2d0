"""How far the loss should fall in a stretch, from what the same line did before. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from symbio_core.monitors import robust_slope
from symbio_core.records import EvalPoint, Interval

RECENT = math.log(8.0)
"""How far back the pace is read: from an eighth of the learning done so far."""
POINTS_NEEDED = 4
"""Evaluations below which no pace is read."""


def learning_done(points: Sequence[EvalPoint]) -> npt.NDArray[np.float64]:
    """Return the logarithm of steps × learning rate over peak, summed up to each point.

    A power law of small exponent is a line in it, and a step at half the learning rate counts half,
    so one slope serves a stretch at a constant learning rate and one at a falling one.

    Args:
        points: evaluations of one line, oldest first.

    Returns:
        Shape (n_points,), without unit; what came before the first point counts at its own
        learning rate.

    Source:
        Kaplan et al. (2020), Scaling Laws for Neural Language Models, eq. 1.6 (loss is a power of
        steps); that a step counts by its learning rate: Tissue et al. (2024), Scaling Law with
        Learning Rate Annealing, arXiv 2408.11029, eq. 1 (its forward area S₁).
    """
    steps = np.array([point.line_step for point in points], dtype=np.float64)
    rates = np.array([point.lr_factor for point in points], dtype=np.float64)
    gained = (rates[1:] + rates[:-1]) / 2.0 * np.maximum(0.0, np.diff(steps))
    done = steps[0] * rates[0] + np.concatenate([[0.0], np.cumsum(gained)])
    return np.asarray(np.log(np.maximum(1.0, done)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Course:
    """How fast a line learned before a stretch and in it."""

    before: Interval | None
    """Slope of the validation loss before (nats per unit of `learning_done`); None where it is not
    surely a fall, or too few points tell it."""
    own: Interval
    """The same in the stretch; of infinite width where fewer than three points tell it."""
    gained: float
    """How much `learning_done` grew in the stretch."""

    @property
    def expected_nats(self) -> float | None:
        """Fall that the stretch should have brought, at least (nats a token); None if unknown."""
        return None if self.before is None else -self.before.value * self.gained


def course_of(
    earlier: Sequence[EvalPoint], points: Sequence[EvalPoint], *, confidence: float
) -> Course:
    """Compare a stretch of a line with what the line did before, by robust slopes.

    In healthy runs of the demo profile (four seeds) stretches at a constant learning rate kept 0.9
    to 1.1 times the pace before, and falling ones 1.2 to 6 times: annealing adds to it, so what is
    expected is a lower bound there.

    Args:
        earlier: evaluations of the same line before the stretch, in any order; those that do not
            lie before it are passed over.
        points: evaluations of the stretch, oldest first, its start included.
        confidence: of both slopes (0..1).

    Source:
        Sen (1968), see `monitors.robust_slope`.
    """
    if not points:
        return Course(None, robust_slope([], [], confidence=confidence), 0.0)
    before = [point for point in earlier if point.line_step < points[0].line_step]
    line = [*sorted(before, key=lambda point: point.line_step), *points]
    done, begin = learning_done(line), len(before)
    losses = np.array([point.val_nats for point in line])
    own = robust_slope(done[begin:], losses[begin:], confidence=confidence)
    recent = np.flatnonzero(done[: begin + 1] >= done[begin] - RECENT)
    found = robust_slope(done[recent], losses[recent], confidence=confidence)
    known = recent.size >= POINTS_NEEDED and found.below_zero
    return Course(found if known else None, own, float(done[-1] - done[begin]))
