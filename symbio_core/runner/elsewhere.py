"""A phase on another machine than its parent: take the turn, train, tell through the storage."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from symbio_core import progress
from symbio_core.errors import Interrupted, StorageError, SymbioError, TurnOver
from symbio_core.progress import Progress
from symbio_core.records import PhasePlan
from symbio_core.runner.opening import reopen
from symbio_core.runner.run import Run
from symbio_core.storage.post import Post, Sitting


class RunElsewhere(Run):
    """A run as the process sees it that only trains one of its phases.

    It reads the journal and writes none of it: its lines go to the post, and the parent enters
    them.
    """

    sitting: Sitting

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write without the run's lease, which the parent holds: the turn is what fences this."""
        self.claim()
        with self.saving():
            yield

    def claim(self, *, take_over: bool = False) -> None:
        """Save checkpoints under the turn; the parent holds the lease and writes the journal."""
        if self.store.checkpoints.fence is None:
            self.store.checkpoints.claim(self.sitting)

    def _enter(self, *lines: dict[str, Any]) -> None:
        self._join_saves()
        self.sitting.note(*lines)
        self._fold_in(*lines)


@contextmanager
def sit(root: str, run_id: str, plan: PhasePlan, turn: int) -> Iterator[RunElsewhere]:
    """Hold a turn at a phase while the body trains it: beat, obey, tell how it ended.

    Raises:
        TurnOver: the turn is not ours, or no longer.
    """
    whole = reopen(root, run_id)
    run = RunElsewhere(run_id, whole.config, whole.store)
    run.sitting = Post(run.store, plan).take(turn, platform.node(), os.getpid())
    run._fold_in(*run.sitting.lines)
    beating = _Beating(run.sitting, run.config.compute.elsewhere.beat_s, run_id)
    beating.patience_s = run.config.compute.elsewhere.lost_after_s
    try:
        with beating:
            yield run
    except TurnOver:
        raise
    except Interrupted as stop:
        beating.tell(state="saved", message=str(stop), retryable=True)
        raise
    except BaseException as error:
        told = str(error) if isinstance(error, SymbioError) else f"{type(error).__name__}: {error}"
        retryable = bool(getattr(error, "retryable", not isinstance(error, Exception)))
        beating.tell(state="failed", message=told, retryable=retryable)
        raise
    beating.tell(state="done")


class _Beating:
    """A thread that says every few seconds that the phase lives."""

    def __init__(self, sitting: Sitting, beat_s: float, run_id: str) -> None:
        self.sitting = sitting
        self.beat_s = beat_s
        self.patience_s = 60.0
        self.run_id = run_id
        self.lost: TurnOver | None = None
        self._latest: Progress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> None:
        self._unsubscribe = progress.subscribe(self._listen)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._unsubscribe()
        if self.lost is not None:
            raise self.lost

    def tell(self, **facts: Any) -> None:
        """Beat a last time; whoever cannot hear it will notice the silence."""
        try:
            self.sitting.beat(**self._facts(), **facts)
        except StorageError:
            return

    def _listen(self, report: Progress) -> None:
        # Raised in the midst of training: a process whose turn is over saves nothing more.
        if self.lost is not None:
            raise self.lost
        if report.run_id == self.run_id:
            self._latest = report

    def _keep_beating(self) -> None:
        heard = time.monotonic()
        while not self._over.wait(self.beat_s):
            try:
                wish = self.sitting.beat(**self._facts())
            except TurnOver as over:
                self.lost = over
                return
            except StorageError as error:
                if time.monotonic() - heard > self.patience_s:
                    self.lost = TurnOver(f"the storage has been out of reach for too long: {error}")
                    return
                continue
            heard = time.monotonic()
            if wish.end:
                progress.request_end(wish.end)
            if wish.stop:
                progress.request_stop()

    def _facts(self) -> dict[str, Any]:
        names = ("activity", "step", "loss", "tokens_per_s", "eta_s", "formula")
        latest = self._latest
        return {name: getattr(latest, name) for name in names} if latest is not None else {}
