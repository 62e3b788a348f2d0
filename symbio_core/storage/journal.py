"""An append-only journal in create-once segments, so that no line is ever half written.

::

    journal/<number>.jsonl        one or more events, one JSON object a line
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from symbio_core.errors import StorageError, SwapLost
from symbio_core.storage.canonical import json_bytes
from symbio_core.storage.objects import ObjectStore

_SEGMENT = re.compile(r"\d{8}\.jsonl")


class Journal:
    """The events of one run."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self.store = store
        self.home = f"runs/{run_id}/journal/"
        self._length: int | None = None

    def append(self, events: Sequence[dict[str, Any]]) -> None:
        """Write events as the next segment; no events, no segment.

        Raises:
            SwapLost: another writer has appended since this one read or wrote last.
            StorageError: a segment is missing, so that it is not known which is next.
        """
        if not events:
            return
        if self._length is None:
            self._length = len(self._segments())
        key = self._key(self._length)
        try:
            # Not `create`: an equal event of another writer must not pass for ours.
            self.store.swap(key, b"".join(json_bytes(event) + b"\n" for event in events), None)
        except SwapLost as error:
            raise SwapLost(
                f"{self.store.where(key)} was written by somebody else: another process works on "
                "this run; stop one of them, then resume it"
            ) from error
        self._length += 1

    def read(self) -> list[dict[str, Any]]:
        """Return all events, oldest first.

        Raises:
            StorageError: a segment is missing or damaged; the message names it.
        """
        segments = self._segments()
        events = [event for key in segments for event in self._events(key)]
        self._length = len(segments)
        return events

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

    def _events(self, key: str) -> list[dict[str, Any]]:
        found = self.store.read(key)
        try:
            # Split at the line feed alone: str.splitlines also cuts inside the text of an event.
            *lines, rest = found.data.decode().split("\n") if found else [""]
            events = [json.loads(line) for line in lines]
            if rest or not events or not all(isinstance(event, dict) for event in events):
                raise ValueError("it is cut short or holds something else than events")
        except ValueError as error:
            raise StorageError(
                f"journal segment {self.store.where(key)} is damaged: {error}; put back a copy"
            ) from error
        return events
