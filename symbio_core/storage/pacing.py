"""Not too often: at most so many writes a second to any one name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

INTERVAL_S = 1.0
"""Cloud Storage takes one write a second to one name and answers further ones with 429 (s)."""


class Pacer:
    """Lets the caller wait until a name may be written again; threads may share it."""

    def __init__(
        self,
        interval_s: float = INTERVAL_S,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.interval_s = interval_s
        self._clock, self._sleep = clock, sleep
        self._free: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, name: str) -> None:
        """Return when ``name`` may be written; callers of one name go one after the other."""
        with self._lock:
            now = self._clock()
            self._free = {key: at for key, at in self._free.items() if at > now}
            turn = self._free.get(name, now)
            self._free[name] = turn + self.interval_s
        if turn > now:
            self._sleep(turn - now)

    def hold(self, name: str) -> None:
        """Keep ``name`` from being written for an interval from now."""
        with self._lock:
            due = self._clock() + self.interval_s
            self._free[name] = max(self._free.get(name, due), due)
