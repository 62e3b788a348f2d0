"""Where things lie on the axis of steps spent by the run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from symbio_core.records import Attempt, EvalPoint, Generation


@dataclass(frozen=True, slots=True)
class Stretch:
    """The steps of the run that one attempt at a phase took."""

    attempt: Attempt
    begin: int
    end: int

    @property
    def label(self) -> str:
        """Its phase, and which try it was where it was not the first."""
        tries = self.attempt.outcome.attempt
        name = str(self.attempt.outcome.phase)
        return name if tries == 1 else f"{name} (try {tries})"


def stretches(attempts: Sequence[Attempt]) -> list[Stretch]:
    """Lay the attempts one after another on the axis of steps spent."""
    found, spent = [], 0
    for attempt in attempts:
        begin, spent = spent, spent + attempt.outcome.steps
        found.append(Stretch(attempt, begin, spent))
    return found


def generations(attempts: Sequence[Attempt]) -> list[Generation]:
    """Return every generation of the run, in order."""
    return [g for attempt in attempts for g in attempt.outcome.generations]


def generation_points(stretch: Stretch) -> list[tuple[Generation, EvalPoint]]:
    """Pair each generation with the first evaluation of the main line after it.

    Candidates spend steps of the run that do not lengthen the main line, so the distance between
    the two counts grows where a generation lies; the evaluations show by how much.
    """
    points = stretch.attempt.outcome.points
    if not points:
        return []
    lead = _lead(points[0])
    paired, overhead, index = [], 0, 0
    for generation in stretch.attempt.outcome.generations:
        overhead += generation.steps - generation.steps_kept
        while index < len(points) - 1 and _lead(points[index]) < lead + overhead:
            index += 1
        paired.append((generation, points[index]))
    return paired


def _lead(point: EvalPoint) -> int:
    return point.step - point.line_step
