"""One channel for progress, and one for the wish to stop or to come to an end.

Command line, Prefect and tests listen to a run, and stop it, in the same way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from symbio_core.records import Record


class Progress(Record):
    """Where a run is at this moment."""

    run_id: str
    phase: str
    attempt: int = 1
    activity: str
    """`training`, `searching`, `confirming`, `judging`, `writing`."""
    step: int
    """Steps of the run spent so far."""
    steps: int
    """The run's budget of steps."""
    loss: float | None = None
    """Latest training loss (nats a token)."""
    tokens_per_s: float | None = None
    eta_s: float | None = None
    """Time left at the present pace (s)."""
    formula: str = ""
    message: str = ""
    """A sentence worth a line of its own, or empty."""


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call ``listener`` for each report of progress until the returned function is called."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def publish(progress: Progress) -> None:
    """Tell all listeners."""
    for listener in tuple(_listeners):
        listener(progress)


_stop = threading.Event()
_end: list[str] = []


def request_stop() -> None:
    """Ask whatever trains in this process to save and stop at the next step."""
    _stop.set()


def stop_requested() -> bool:
    """Say whether somebody asked to stop."""
    return _stop.is_set()


def clear_stop() -> None:
    """Forget an earlier wish to stop, before a new run begins."""
    _stop.clear()
    _end.clear()


def request_end(why: str) -> None:
    """Ask whatever trains in this process to come to a good end soon, as at a cap."""
    _end[:] = [why]


def end_requested() -> str:
    """Return why somebody asked for a good end, or nothing."""
    return _end[0] if _end else ""
