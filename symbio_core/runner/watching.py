"""Monitors of the main line: lasting shifts of losses, gradients, clipping and pace, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from symbio_core.monitors import cusum_alarms
from symbio_core.monitors.cusum import Side
from symbio_core.records import EvalPoint, Record
from symbio_core.streams import generator
from symbio_core.training import Stretch

BLOCK = 5
"""Steps that are averaged into one point: batches differ, and what matters lasts."""
CLIP_BLOCK = 10
"""The same of the clip share: a share of fewer steps is too coarse to be told from chance."""
RUN_LENGTH = 1_000.0
"""Points to a false alarm of one series, on average; a phase watches five."""
WORDS = {"upper": "rose", "lower": "fell"}
Series = npt.NDArray[np.float64]


class Watch(Record):
    """What every step of the main line showed, in an attempt at a phase so far."""

    stretches: tuple[tuple[int, int], ...] = ()
    """Where each stretch begins: index of its first value, and step of the main line there.

    Between stretches the line may have gone on inside a generation or a trial.
    """
    losses: tuple[float, ...] = ()
    """Training loss (nats a token)."""
    norms: tuple[float, ...] = ()
    """Gradient norm before clipping."""
    paces: tuple[float, ...] = ()
    """Wall time of a step (s)."""
    clips: tuple[bool, ...] = ()
    """Whether the gradient was clipped."""

    def after(self, stretch: Stretch, first: int) -> Watch:
        """Return the watch with another stretch of steps, begun at step ``first`` of the line."""
        return self.model_copy(
            update={
                "stretches": (*self.stretches, (len(self.losses), first)),
                "losses": (*self.losses, *stretch.losses),
                "norms": (*self.norms, *stretch.norms),
                "paces": (*self.paces, *stretch.paces),
                "clips": (*self.clips, *stretch.clips),
            }
        )

    def alarms(self, points: Sequence[EvalPoint] = ()) -> tuple[str, ...]:
        """Return a sentence for every lasting shift: what, when, how far, how sure.

        Gradient norms and paces are read as logarithms, for they vary in proportion, and the clip
        share as an angle, whose spread does not depend on the share. Throughput is watched from
        below: a machine that gets faster is no alarm. Of the validation loss, which is measured
        seldom, only a long phase has enough to be told from.

        Args:
            points: evaluations of the phase, oldest first.

        Source:
            Page (1954), Continuous inspection schemes; see `symbio_core.monitors.cusum_alarms`.
        """
        steps = f"{BLOCK * RUN_LENGTH:g} steps"

        def at(block: int) -> Callable[[int], int]:
            return lambda point: self._step(block * point) + 1

        watched: tuple[tuple[str, Series, Side, Callable[[int], int], str], ...] = (
            ("training loss", _blocks(self.losses), "upper", at(BLOCK), steps),
            ("gradient norm", _blocks(_logs(self.norms)), "upper", at(BLOCK), steps),
            ("throughput", -_blocks(_logs(self.paces)), "lower", at(BLOCK), steps),
            ("clip share", _clip_angles(self.clips), "upper", at(CLIP_BLOCK),
             f"{CLIP_BLOCK * RUN_LENGTH:g} steps"),
            ("validation loss", np.array([p.val_nats for p in points]), "upper",
             lambda point: points[point].line_step, f"{RUN_LENGTH:g} evaluations"),
        )  # fmt: skip
        return tuple(
            f"{name} {WORDS[alarm.side]} at step {step_of(alarm.start)} by "
            f"{abs(alarm.shift):.1f} standard deviations (a false alarm comes once in {seldom})"
            for name, values, side, step_of, seldom in watched
            for alarm in cusum_alarms(values, side=side, run_length=RUN_LENGTH)
        )

    def _step(self, index: int) -> int:
        """Return the step of the main line that a value belongs to."""
        begun, first = max(s for s in self.stretches if s[0] <= index)
        return first + index - begun


def _blocks(values: tuple[float, ...], block: int = BLOCK) -> Series:
    whole = len(values) // block * block
    points: Series = np.array(values[:whole], dtype=np.float64)
    return np.asarray(points.reshape(-1, block).mean(axis=1))


def _clip_angles(clips: tuple[bool, ...]) -> Series:
    """Return the clip share of each block as the angle whose squared sine it is (rad).

    A count takes few values, so that a rare one more would look like a shift; a random fraction
    fills the gaps between counts. It is drawn from a stream of its own, the same every time.

    Source:
        Anscombe (1948), The transformation of Poisson, binomial and negative-binomial data,
        Biometrika 35, for the angle; Dunn & Smyth (1996), Randomized quantile residuals, J.
        Computational and Graphical Statistics 5, for filling the gaps.
    """
    counts = CLIP_BLOCK * _blocks(clips, CLIP_BLOCK)
    between = generator(0, "clip share").random(counts.size)
    return np.asarray(np.arcsin(np.sqrt((counts + between) / (CLIP_BLOCK + 1))))


def _logs(values: tuple[float, ...]) -> tuple[float, ...]:
    array: npt.NDArray[np.float64] = np.array(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(float(x) for x in np.log(array))
