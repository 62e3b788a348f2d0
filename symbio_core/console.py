"""What a person sees while a run goes on: a moving bar in a terminal, plain lines in a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from symbio_core.progress import Progress, subscribe

LINE_EVERY_S = 10.0
"""Plain output writes a line this often (s), and one at each change of phase or activity."""


class Watcher:
    """Shows a run's progress on a console; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Bar | None = None
        self.last: tuple[str, int, str] | None = None
        self.written_at = 0.0

    def __enter__(self) -> Watcher:
        if self.console.is_terminal:
            self.bar = Bar(
                TextColumn("[bold]{task.fields[phase]:>13}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%  {task.description}"),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task("getting ready", total=1.0, phase="")
            self.bar.start()
        self.unsubscribe = subscribe(self.show)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unsubscribe()
        if self.bar is not None:
            self.bar.stop()

    def show(self, report: Progress) -> None:
        """Show one report."""
        if report.message:
            line = f"{clock(report):<24}{report.message}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
            return
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=report.step / max(1, report.steps),
                phase=report.phase,
                description=figures(report),
            )
            return
        place = (report.phase, report.attempt, report.activity)
        now = time.monotonic()
        if place != self.last or now - self.written_at >= LINE_EVERY_S:
            self.last, self.written_at = place, now
            line = f"{clock(report):<24}step {report.step:>6}/{report.steps}  {figures(report)}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def clock(report: Progress) -> str:
    """Return the phase and, beyond the first, the attempt."""
    again = f" (try {report.attempt})" if report.attempt > 1 else ""
    return f"{report.phase}{again}"


def figures(report: Progress) -> str:
    """Return activity, loss, speed, time left and the function in training, in one line."""
    parts = [f"{report.activity:<10}"]
    if report.loss is not None:
        parts.append(f"loss {report.loss:.3f}")
    if report.tokens_per_s is not None:
        parts.append(f"{report.tokens_per_s / 1000:5.1f}k tok/s")
    if report.eta_s is not None:
        parts.append(f"{duration(report.eta_s)} left")
    if report.formula:
        parts.append(report.formula)
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as a person says them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
