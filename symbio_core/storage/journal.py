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

from symbio_core.errors import StorageError, SwapLost
from symbio_core.records import Record
from symbio_core.storage.canonical import json_bytes
from symbio_core.storage.lease import Fence
from symbio_core.storage.objects import ObjectStore

_SEGMENT = re.compile(r"\d{8}\.jsonl")
_NONE_BEFORE = ""


class Heading(Record):
    """The first line of a segment."""

    lines: int = Field(ge=0)
    """How many events follow."""
    sha256: str
    """Hash of their bytes, hex."""
    before: str
    """Hash of the whole segment before, hex; empty for the first."""
    writer: str
    """Tag of who wrote it."""


class Journal:
    """The events of one run."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self.store = store
        self.home = f"runs/{run_id}/journal/"
        self.fence: Fence | None = None
        self._writer = uuid4().hex
        self._length: int | None = None
        self._before = _NONE_BEFORE
        self._is_sealed = False

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """Write events as the next segment; no events, no segment.

        Raises:
            LeaseLost: another holder has taken the run over.
            SwapLost: another writer has appended since this one read or wrote last.
            StorageError: a segment is missing or damaged, so that it is not known which is next.
        """
        if events:
            self._write(events)

    def claim(self, fence: Fence) -> list[dict[str, Any]]:
        """Shut out all earlier writers, and return every event up to here, oldest first.

        Raises:
            LeaseLost: the lease behind ``fence`` is not ours any more.
            StorageError: a segment is missing or damaged.
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
            StorageError: a segment is missing or damaged; the message names it.
        """
        segments = self._segments()
        self._before, self._is_sealed = _NONE_BEFORE, False
        events = [event for key in segments for event in self._events(key)]
        self._length = len(segments)
        return events

    def first(self) -> dict[str, Any] | None:
        """Return the oldest event without reading the others, or None before there is one.

        Raises:
            StorageError: a segment on the way to it is missing or damaged.
        """
        reader = Journal(self.store, "")
        reader.home = self.home
        return next((event for key in self._segments() for event in reader._events(key)), None)

    def _write(self, events: Sequence[dict[str, Any]]) -> None:
        if self._length is None:
            self.read()
        assert self._length is not None
        body = b"".join(json_bytes(event) + b"\n" for event in events)
        heading = Heading(
            lines=len(events), sha256=_sha256(body), before=self._before, writer=self._writer
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

    def _segments(self) -> list[str]:
        keys = self.store.keys(self.home)
        keys = [key for key in keys if _SEGMENT.fullmatch(key.removeprefix(self.home))]
        for number, key in enumerate(keys):
            if key != self._key(number):
                missing = self.store.where(self._key(number))
                raise StorageError(f"journal segment {missing} is missing; put back a copy of it")
        return keys

    def _events(self, key: str) -> Iterator[dict[str, Any]]:
        found = self.store.read(key)
        data = found.data if found else b""
        try:
            events = self._checked(data)
        except (ValueError, RecursionError) as error:
            raise StorageError(
                f"journal segment {self.store.where(key)} is damaged: {_why(error)}; "
                "put back a copy"
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
        if (heading.lines, heading.sha256) != (len(events) - 1, _sha256(body)):
            raise ValueError(f"it holds {len(events) - 1} events and not the {heading.lines} meant")
        if heading.before != self._before:
            raise ValueError("it does not follow from the segment before it")
        self._is_sealed = True
        return events[1:]


_CUT = "it is cut short or holds something else than events"


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
