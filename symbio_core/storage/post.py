"""Where a phase that runs elsewhere and the parent that waits for it meet: three small objects.

::

    runs/<run_id>/elsewhere/<phase>-<attempt>/
        turn.json      written by the parent: which start of the phase counts, and whether to stop
        pulse.json     written by the phase, every few seconds: it lives, and how far it is
        result.json    written by the phase: journal lines that the parent will enter

Only the parent writes the journal. Each start of the phase has a number, its turn; a process whose
turn is over finds that out at its next pulse and ends without saving, and its pulse and its result
lose their compare-and-swap. So a phase that was given up for lost and lives on harms nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field

from symbio_core.errors import Damaged, SwapLost, TurnOver
from symbio_core.records import PhasePlan, Record
from symbio_core.storage.canonical import parsed_json
from symbio_core.storage.objects import read_text
from symbio_core.storage.runs import RunStore


class Turn(Record):
    """Which start of an attempt counts: the parent's word."""

    number: int
    """Counted from 1."""
    key: str = Field(default_factory=lambda: uuid4().hex)
    """Names this very start: a parent that comes back finds it by that, and no run of long ago."""
    stop: bool = False
    """Save and stop at the next step."""
    end: str = ""
    """Come to a good end soon, and why."""
    fruitless: int = 0
    """Starts in a row, before this one, that ended without a step more than the ones before."""
    reached: int = 0
    """Furthest step of the run that any earlier start reported."""
    why: str = ""
    """What ended the start before."""


class Pulse(Record):
    """That a phase lives, and how far it is: the phase's word."""

    turn: int
    holder: str
    """Made up by each process, so that two of one turn are told apart."""
    beat: int = 0
    state: Literal["running", "done", "saved", "failed"] = "running"
    message: str = ""
    """What went wrong, where it failed."""
    retryable: bool = False
    """Whether another start may do better."""
    host: str = ""
    pid: int = 0
    activity: str = "starting"
    step: int = 0
    """Steps of the run spent so far."""
    loss: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    formula: str = ""

    @property
    def is_over(self) -> bool:
        """The process has ended by itself."""
        return self.state != "running"


class Post:
    """The three objects of one attempt at a phase."""

    def __init__(self, store: RunStore, plan: PhasePlan) -> None:
        self.store = store.store
        self.home = f"{store.home}/elsewhere/{plan.phase}-{plan.attempt}"

    # --- the parent's side

    def turn(self) -> Turn | None:
        """Return the turn that counts, or None before the first."""
        return self._turn(self._read("turn.json"))

    def _turn(self, found: tuple[dict[str, Any], str] | None) -> Turn | None:
        with self._understood("turn.json"):
            return Turn.model_validate(found[0]) if found else None

    def give_turn(self, before: Turn | None, turn: Turn) -> None:
        """Put ``turn`` in the place of the one that counted.

        Raises:
            SwapLost: another parent has moved it since.
        """
        found = self._read("turn.json")
        if self._turn(found) != before:
            raise SwapLost(
                f"another process has started {self.home} again; see that one parent works on it"
            )
        self._write("turn.json", turn.model_dump(mode="json"), found[1] if found else None)

    def pulse(self) -> Pulse | None:
        """Return the newest pulse, of whichever turn."""
        found = self._read("pulse.json")
        with self._understood("pulse.json"):
            return Pulse.model_validate(found[0]) if found else None

    def lines(self) -> list[dict[str, Any]]:
        """Return the journal lines that the phase has found so far."""
        return self._lines(self._read("result.json"))

    def _lines(self, found: tuple[dict[str, Any], str] | None) -> list[dict[str, Any]]:
        with self._understood("result.json"):
            lines = list(found[0]["lines"]) if found else []
            if not all(isinstance(line, dict) for line in lines):
                raise ValueError("a line is no object")
            return lines

    # --- the phase's side

    def take(self, turn: int, host: str, pid: int = 0) -> Sitting:
        """Begin a turn, as the one process that may.

        Raises:
            TurnOver: another turn counts by now, or another process has taken this one.
        """
        sitting = Sitting(self, turn, host, pid)
        pulse = self.pulse()
        if pulse is not None and pulse.turn == turn:
            raise TurnOver(f"turn {turn} of {self.home} was taken by another process already")
        sitting.beat(activity="starting")
        return sitting

    def _read(self, name: str) -> tuple[dict[str, Any], str] | None:
        found = read_text(self.store, f"{self.home}/{name}")
        if found is None:
            return None
        with self._understood(name):
            content = parsed_json(found.data)
            if not isinstance(content, dict):
                raise ValueError("not an object")
            return content, found.version

    @contextmanager
    def _understood(self, name: str) -> Iterator[None]:
        """Say in one line that one of the three is not what was written."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            where = self.store.where(f"{self.home}/{name}")
            why = " ".join(str(error).split())[:200]
            raise Damaged(f"{where} is damaged ({why}); delete it and resume") from error

    def _write(self, name: str, content: dict[str, Any], version: str | None) -> str:
        text = json.dumps(content, sort_keys=True, indent=1) + "\n"
        return self.store.swap(f"{self.home}/{name}", text.encode(), version)


class Sitting:
    """One process's turn at a phase."""

    def __init__(self, post: Post, turn: int, host: str, pid: int) -> None:
        self.post = post
        self.turn = turn
        self._pulse = Pulse(turn=turn, holder=uuid4().hex, host=host, pid=pid)
        before = post._read("pulse.json")
        self._pulse_version = before[1] if before else None
        result = post._read("result.json")
        self._result_version = result[1] if result else None
        self.lines = post._lines(result)

    @property
    def tag(self) -> str:
        """Made up by each process: what ``LATEST`` carries while the phase saves."""
        return self._pulse.holder

    def check(self) -> None:
        """See that the turn still counts; with `tag`, the fence of the checkpoints it saves.

        Raises:
            TurnOver: another turn counts by now; nothing may be saved any more.
        """
        self._counted()

    def beat(self, **facts: Any) -> Turn:
        """Say that the phase lives, and return what the parent wishes.

        Raises:
            TurnOver: another turn counts by now; nothing may be saved any more.
        """
        turn = self._counted()
        fresh = {"beat": self._pulse.beat + 1, **facts}
        self._pulse = self._pulse.model_copy(update=fresh)
        try:
            self._pulse_version = self.post._write(
                "pulse.json", self._pulse.model_dump(mode="json"), self._pulse_version
            )
        except SwapLost as error:
            raise TurnOver(f"another process beats for {self.post.home}") from error
        return turn

    def _counted(self) -> Turn:
        turn = self.post.turn()
        if turn is None or turn.number != self.turn:
            raise TurnOver(f"turn {self.turn} of {self.post.home} is over")
        return turn

    def note(self, *more: dict[str, Any]) -> None:
        """Keep journal lines for the parent, all of them or none.

        Raises:
            TurnOver: another turn counts by now, or another process has written since.
        """
        self._counted()  # A start that was given up and wakes has no say any more.
        lines = [*self.lines, *more]
        content = {"turn": self.turn, "lines": lines}
        try:
            self._result_version = self.post._write("result.json", content, self._result_version)
        except SwapLost as error:
            raise TurnOver(f"another process has written {self.post.home}/result.json") from error
        self.lines = lines
