"""Calls to a service that fail now and then: retried with growing pauses, told in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP answers that pass by themselves."""
TOO_FAST = ("rateLimitExceeded", "userRateLimitExceeded")
"""Reasons that pass as well; the Compute API gives them with 429 or with 403."""
UNSURE = {
    "TIMEOUT", "network", "401", "backendError", "internalError", *TOO_FAST,
    *(str(status) for status in PASSING),
}  # fmt: skip
"""Codes after which a change may have happened all the same."""


def is_final(code: str) -> bool:
    """Say whether a refusal says for sure that nothing was done."""
    return code not in UNSURE


@dataclass(frozen=True)
class Patience:
    """How long to try, and how often to look."""

    pause_s: float = 0.5
    """First pause between two tries (s); each further one doubles it."""
    longest_pause_s: float = 20.0
    """Longest pause between two tries (s)."""
    tries: int = 8
    """Tries of one call."""
    poll_s: float = 1.0
    """Pause between two looks at an operation (s)."""
    operation_s: float = 600.0
    """How long an operation may take before it counts as failed (s)."""
    request_s: float = 60.0
    """How long one request may take (s)."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error of Google's clients stands for."""
    code = getattr(error, "code", None)
    return int(code) if isinstance(code, int) else None


def reason_of(error: Exception) -> str:
    """Return the service's own word for an error, for example `quotaExceeded`."""
    for part in getattr(error, "errors", None) or ():
        if isinstance(part, dict) and part.get("reason"):
            return str(part["reason"])
    return str(status_of(error) or type(error).__name__)


def passes(error: Exception) -> bool:
    """Say whether an error may be gone at the next try: a busy service, a lost connection."""
    status = status_of(error)
    if status is not None:
        return status in PASSING or reason_of(error) in TOO_FAST
    # requests' errors are OSErrors; google-auth wraps them in one of its own.
    return isinstance(error, OSError) or type(error).__name__ == "TransportError"


def insist(call: Callable[[], T], patience: Patience) -> T:
    """Return what ``call`` returns, trying again while its errors may pass.

    Raises:
        Exception: the last error of ``call``, once it cannot pass or the tries are used up.
    """
    pause = patience.pause_s
    for left in reversed(range(patience.tries)):
        try:
            return call()
        except Exception as error:
            if not left or not passes(error):
                raise
        patience.sleep(pause)
        pause = min(2 * pause, patience.longest_pause_s)
    raise AssertionError("there is at least one try")
