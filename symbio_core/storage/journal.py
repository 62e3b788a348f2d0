"""An append-only journal in create-once segments, so that no line is ever half written.

::

    journal/<number>.jsonl        a line about the segment, then events, one JSON object a line

The first line says how many events follow, their hash, the hash of the segment before, and who
wrote it. So a segment that was cut short, also at the end of a line, or exchanged, is noticed, and
two writers never write the same bytes. A segment without events claims the journal for its writer.
Journals of earlier versions have no such lines and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from pydantic import Field, ValidationError

from symbio_core.errors import Damaged, SwapLost
from symbio_core.records import Record
from symbio_core.storage.canonical import json_bytes
from symbio_core.storage.lease import Fence
from symbio_core.storage.objects import ObjectStore, read_text

_SEGMENT = re.compile(r"\d{8}\.jsonl")
_NONE_BEFORE = ""
_ASIDE = "set-aside-"


class Heading(Record):
    """The first line of a segment."""

    lines: int = Field(ge=0)
    """How many events follow."""
    before: str
    """Hash of the whole segment before, hex; empty for the first."""
    writer: str
    """Tag of who wrote it."""
    sha256: str
    """Hash of the bytes of the events, after those of ``before`` and ``writer``, hex."""


class Journal:
    """The events of one run."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self.store = store
        self.home = f"runs/{run_id}/journal/"
        self.fence: Fence | None = None
        self._writer = uuid4().hex
        self._length: int | None = None
        self._before: str | None = _NONE_BEFORE
        self._is_sealed = False

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """Write events as the next segment; no events, no segment.

        Raises:
            LeaseLost: another holder has taken the run over.
            SwapLost: another writer has appended since this one read or wrote last.
            Damaged: a segment is missing or damaged, so that it is not known which is next.
        """
        if events:
            self._write(events)

    def claim(self, fence: Fence) -> list[dict[str, Any]]:
        """Shut out all earlier writers, and return every event up to here, oldest first.

        Raises:
            LeaseLost: the lease behind ``fence`` is not ours any more.
            Damaged: a segment is missing or damaged.
        """
        self.fence, self._writer = fence, fence.tag
        while True:
            events = self.read()
            try:
                self._write(())
            except SwapLost:
                continue  # An earlier writer was faster: what it wrote is read, and then it is out.
            return events

    def read(self) -> list[dict[str, Any]]:
        """Return all events, oldest first.

        Raises:
            Damaged: a segment is missing or damaged; the message names it.
        """
        segments = self._segments()
        self._before, self._is_sealed = _NONE_BEFORE, False
        events = [event for key in segments for event in self._events(key)]
        self._length = len(segments)
        return events

    def first(self) -> dict[str, Any] | None:
        """Return the oldest event without reading the others, or None before there is one.

        Raises:
            Damaged: a segment on the way to it is missing or damaged.
        """
        reader = self._reader()
        return next((event for key in self._segments() for event in reader._events(key)), None)

    @property
    def length(self) -> int | None:
        """How many segments there were when it was last read or written here."""
        return self._length

    def survey(self) -> dict[str, str | None]:
        """Return what is wrong with each segment (None: nothing), by key, also of missing ones."""
        reader = self._reader()
        found: dict[str, str | None] = {}
        keys = self._found()
        last = int(keys[-1].removeprefix(self.home).removesuffix(".jsonl")) if keys else -1
        for number in range(min(last + 1, 2 * len(keys) + 1)):
            key = self._key(number)
            found[key] = None
            if key not in keys:
                found[key], reader._before = "missing", None
                continue
            try:
                list(reader._events(key))
            except Damaged as error:
                found[key], reader._before = str(error), None
        return found

    def set_aside(self, first: str) -> list[str]:
        """Move a segment and all after it out of the journal, and return where they lie now.

        Nothing is lost by it: they are copied before they are taken away.
        """
        beside = f"{self.home}{_ASIDE}{uuid4().hex[:8]}/"
        moved = []
        for key in reversed([key for key in self._found() if key >= first]):
            found = self.store.read(key)
            if found is not None:
                self.store.create(beside + key.removeprefix(self.home), found.data)
                if self.fence is not None:
                    self.fence.check()
                self.store.delete(key)
                moved.append(self.store.where(beside + key.removeprefix(self.home)))
        self._length = None
        return moved[::-1]

    def aside(self) -> list[str]:
        """Return the keys of all that was set aside and is still there."""
        return self.store.keys(f"{self.home}{_ASIDE}")

    def _reader(self) -> Journal:
        reader = Journal(self.store, "")
        reader.home = self.home
        return reader

    def _write(self, events: Sequence[dict[str, Any]]) -> None:
        if self._length is None:
            self.read()
        assert self._length is not None
        body = b"".join(json_bytes(event) + b"\n" for event in events)
        before, writer = self._before or _NONE_BEFORE, self._writer
        heading = Heading(
            lines=len(events), before=before, writer=writer, sha256=_seal(before, writer, body)
        )
        data = json_bytes({"segment": heading.model_dump()}) + b"\n" + body
        key = self._key(self._length)
        if self.fence is not None:
            self.fence.check()
        try:
            # Not `create`: an equal event of another writer must not pass for ours.
            self.store.swap(key, data, None)
        except SwapLost as error:
            if self.fence is not None:
                self.fence.check()
            raise SwapLost(
                f"{self.store.where(key)} was written by somebody else: another process works on "
                "this run; stop one of them, then resume it"
            ) from error
        self._length += 1
        self._before = _sha256(data)

    def _key(self, number: int) -> str:
        return f"{self.home}{number:08d}.jsonl"

    def _found(self) -> list[str]:
        keys = self.store.keys(self.home)
        return [key for key in keys if _SEGMENT.fullmatch(key.removeprefix(self.home))]

    def _segments(self) -> list[str]:
        keys = self._found()
        for number, key in enumerate(keys):
            if key != self._key(number):
                missing = self.store.where(self._key(number))
                raise Damaged(f"journal segment {missing} is missing; {_MEND}")
        return keys

    def _events(self, key: str) -> Iterator[dict[str, Any]]:
        found = read_text(self.store, key)
        data = found.data if found else b""
        try:
            events = self._checked(data)
        except (ValueError, RecursionError) as error:
            raise Damaged(
                f"journal segment {self.store.where(key)} is damaged: {_why(error)}; {_MEND}"
            ) from error
        self._before = _sha256(data)
        yield from events

    def _checked(self, data: bytes) -> list[dict[str, Any]]:
        # Split at the line feed alone: str.splitlines also cuts inside the text of an event.
        *lines, rest = data.decode().split("\n")
        events = [json.loads(line) for line in lines]
        if rest or not events or not all(isinstance(event, dict) for event in events):
            raise ValueError(_CUT)
        if list(events[0]) != ["segment"]:
            if self._is_sealed or "event" not in events[0]:
                raise ValueError(_CUT)
            return events  # of an earlier version
        heading = Heading.model_validate(events[0]["segment"])
        body = data[data.index(b"\n") + 1 :]
        if heading.lines != len(events) - 1:
            raise ValueError(f"it holds {len(events) - 1} events and not the {heading.lines} meant")
        if heading.sha256 != _seal(heading.before, heading.writer, body):
            raise ValueError("it does not match its hash")
        if self._before is not None and heading.before != self._before:
            raise ValueError("it does not follow from the segment before it")
        self._is_sealed = True
        return events[1:]


_MEND = "put back a copy, or go back to what stands before it: symbio fsck RUN --repair"
_CUT = "it is cut short or holds something else than events"


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def _seal(before: str, writer: str, body: bytes) -> str:
    return _sha256(f"{before}\n{writer}\n".encode(errors="backslashreplace") + body)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
