"""The clock of a run: seconds spent, caps, predictions, and reports of progress."""

from __future__ import annotations

import time
from collections.abc import Callable

from symbio_core.config import RunConfig
from symbio_core.progress import Progress, end_requested, publish
from symbio_core.records import PhasePlan

Clock = Callable[[], float]
REPORT_EVERY_S = 0.2
"""Reports come no faster than this (s)."""
MIN_WATCHED_S = 20.0
"""A phase shorter than this is never called overtime: start-up and noise rule there (s)."""


class Pace:
    """Knows how long the run has taken and how long it should take."""

    def __init__(
        self,
        config: RunConfig,
        run_id: str,
        tokens_per_step: int,
        *,
        run_seconds: float,
        phase_seconds: float,
        predicted_s: float | None,
        patience: float = 1.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.config = config
        self.run_id = run_id
        self.tokens_per_step = tokens_per_step
        self.predicted_s = predicted_s
        """Expected wall time of this attempt (s), None where nothing is known yet."""
        self.overtime = config.gates.overtime * patience
        """How many times that it may take."""
        self.clock = clock
        self.began = clock()
        self.run_before = run_seconds
        self.phase_before = phase_seconds
        self.reported_at = float("-inf")
        self.window: list[tuple[float, int]] = []

    @property
    def phase_seconds(self) -> float:
        """Wall time of this attempt, earlier processes included (s)."""
        return self.phase_before + self.clock() - self.began

    def is_over(self) -> bool:
        """Say whether the cap on seconds is reached, or somebody asked for a good end."""
        if end_requested():
            return True
        cap = self.config.budget.max_seconds
        return cap is not None and self.run_before + self.phase_seconds >= cap

    def is_overtime(self, _spent: int) -> bool:
        """Say whether the attempt takes far longer than predicted."""
        if self.predicted_s is None:
            return False
        now = self.clock() - self.began
        return now > max(MIN_WATCHED_S, self.overtime * self.predicted_s)

    def learn(self, done: int, planned: int) -> None:
        """Predict the attempt from its own first steps, where nothing before it tells its time.

        Args:
            done: steps that this process has spent on it.
            planned: steps that all of it may spend.
        """
        if self.predicted_s is None and done > 0:
            self.predicted_s = planned * (self.clock() - self.began) / done

    def report(self, plan: PhasePlan, activity: str, step: int, loss: float, formula: str) -> None:
        """Publish progress, at most a few times a second."""
        now = self.clock()
        if now - self.reported_at < REPORT_EVERY_S:
            return
        self.reported_at = now
        self.window = [*self.window, (now, step)][-40:]
        rate = self._steps_per_s()
        left = max(0, self.config.budget.steps - step)
        publish(
            Progress(
                run_id=self.run_id,
                phase=plan.phase,
                attempt=plan.attempt,
                activity=activity,
                step=step,
                steps=self.config.budget.steps,
                loss=loss,
                tokens_per_s=rate * self.tokens_per_step if rate else None,
                eta_s=left / rate if rate else None,
                formula=formula,
            )
        )

    def say(self, plan: PhasePlan, message: str, step: int, formula: str) -> None:
        """Publish a sentence worth a line of its own."""
        publish(
            Progress(
                run_id=self.run_id,
                phase=plan.phase,
                attempt=plan.attempt,
                activity="note",
                step=step,
                steps=self.config.budget.steps,
                formula=formula,
                message=message,
            )
        )

    def _steps_per_s(self) -> float | None:
        (first, step0), (last, step1) = self.window[0], self.window[-1]
        return (step1 - step0) / (last - first) if last > first and step1 > step0 else None
