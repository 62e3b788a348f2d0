"""Faults by rule: which request, what breaks, how often.

What a request meets follows from the seed, from who sends it and how many it has sent before; what
others send meanwhile changes nothing.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

KINDS = ("reset_before", "reset_mid", "lost_reply", "corrupt_up", "corrupt_down", "truncate")
"""Besides these: an HTTP status as a number, and `stall:SECONDS`."""


@dataclass
class Rule:
    """One kind of fault and where it strikes."""

    fault: str
    """One of KINDS, a status such as `503`, or `stall:0.5`."""
    method: str = ".*"
    path: str = ""
    """Regular expression that is searched for in path and query."""
    count: int | None = None
    """How often at most; None: no end."""
    probability: float = 1.0
    skip: int = 0
    """So many matching requests pass first."""

    def __post_init__(self) -> None:
        if not (self.fault in KINDS or re.fullmatch(r"\d{3}|stall:[\d.]+", self.fault)):
            raise ValueError(f"there is no fault '{self.fault}'")


class Faults:
    """The rules in force, and what they did so far."""

    def __init__(self, seed: int = 0) -> None:
        self.injected: Counter[str] = Counter()
        self._rules: list[Rule] = []
        self._seed = seed
        self._sent: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, *rules: Rule) -> None:
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        with self._lock:
            self._rules = []

    def seed(self, seed: int) -> None:
        with self._lock:
            self._seed = seed
            self._sent.clear()

    @property
    def total(self) -> int:
        """Faults that struck so far."""
        return sum(self.injected.values())

    def draw(self, method: str, path: str, possible: set[str], writer: str = "") -> str | None:
        """Return the fault that strikes this request, or None.

        Args:
            method: GET, POST …
            path: with its query.
            possible: those of KINDS that mean something for this request.
            writer: who sends it, one request after the other.
        """
        with self._lock:
            number, self._sent[writer] = self._sent[writer], self._sent[writer] + 1
            rng = np.random.default_rng([self._seed, zlib.crc32(writer.encode()), number])
            for rule in self._rules:
                if rule.fault in KINDS and rule.fault not in possible:
                    continue
                if not re.fullmatch(rule.method, method) or not re.search(rule.path, path):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                if rule.count == 0 or rng.random() >= rule.probability:
                    continue
                if rule.count is not None:
                    rule.count -= 1
                self.injected[rule.fault.partition(":")[0]] += 1
                return rule.fault
        return None
