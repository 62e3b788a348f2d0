"""Tests wait for what they need; how long they may is meant for those that hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

WAIT_S = 250.0
"""A busy machine may take minutes for what takes a second; no test measures that."""


def until(holds: Callable[[], Any], seconds: float = WAIT_S) -> Any:
    """Wait until something holds and return it; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)
    return found
