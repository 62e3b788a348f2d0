"""Monitors of the main line's steps: lasting shifts of loss, gradients and pace, told in words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from symbio_core.monitors import cusum_alarms
from symbio_core.monitors.cusum import Side
from symbio_core.records import Record
from symbio_core.training import Stretch

BLOCK = 5
"""Steps that are averaged into one point: batches differ, and what matters lasts."""
RUN_LENGTH = 1_000.0
"""Points to a false alarm of one series, on average; a phase watches three."""
WORDS = {"upper": "rose", "lower": "fell"}


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

    def after(self, stretch: Stretch, first: int) -> Watch:
        """Return the watch with another stretch of steps, begun at step ``first`` of the line."""
        return self.model_copy(
            update={
                "stretches": (*self.stretches, (len(self.losses), first)),
                "losses": (*self.losses, *stretch.losses),
                "norms": (*self.norms, *stretch.norms),
                "paces": (*self.paces, *stretch.paces),
            }
        )

    def alarms(self) -> tuple[str, ...]:
        """Return a sentence for every lasting shift: what, when, how far, how sure.

        Gradient norms and paces are read as logarithms, for they vary in proportion. Throughput is
        watched from below: a machine that gets faster is no alarm.

        Source:
            Page (1954), Continuous inspection schemes; see `symbio_core.monitors.cusum_alarms`.
        """
        watched: tuple[tuple[str, tuple[float, ...], Side], ...] = (
            ("training loss", self.losses, "upper"),
            ("gradient norm", _logs(self.norms), "upper"),
            ("throughput", tuple(-x for x in _logs(self.paces)), "lower"),
        )
        return tuple(
            f"{name} {WORDS[alarm.side]} at step {self._step(BLOCK * alarm.start) + 1} by "
            f"{abs(alarm.shift):.1f} standard deviations (a false alarm comes once in "
            f"{BLOCK * RUN_LENGTH:g} steps)"
            for name, values, side in watched
            for alarm in cusum_alarms(_blocks(values), side=side, run_length=RUN_LENGTH)
        )

    def _step(self, index: int) -> int:
        """Return the step of the main line that a value belongs to."""
        begun, first = max(s for s in self.stretches if s[0] <= index)
        return first + index - begun


def _blocks(values: tuple[float, ...]) -> npt.NDArray[np.float64]:
    whole = len(values) // BLOCK * BLOCK
    points: npt.NDArray[np.float64] = np.array(values[:whole], dtype=np.float64)
    return np.asarray(points.reshape(-1, BLOCK).mean(axis=1))


def _logs(values: tuple[float, ...]) -> tuple[float, ...]:
    array: npt.NDArray[np.float64] = np.array(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(float(x) for x in np.log(array))
