"""What a machine in the cloud says of itself, in the storage: it is up, it is ending, and why.

::

    runs/<run_id>/machines/<name>.json     written by the machine's watchdog, every few seconds
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError

from symbio_core.errors import StorageError, SwapLost
from symbio_core.records import Record
from symbio_core.storage.canonical import parsed_json
from symbio_core.storage.objects import ObjectStore, read_text


class MachineNote(Record):
    """The newest word of a machine."""

    name: str
    beat: int
    """Counted from 1 at each boot."""
    state: Literal["up", "ending"]
    why: str = ""
    """What ends it: `preempted`, `the run is over` …"""
    boot: str = ""
    """Told apart from an earlier boot of the same machine."""


def read_note(store: ObjectStore, run_id: str, name: str) -> MachineNote | None:
    """Return the newest word of a machine; None before its first, and where it is damaged."""
    found = read_text(store, _key(run_id, name))
    try:
        return MachineNote.model_validate_json(found.data) if found else None
    except ValidationError:
        return None  # The machine writes the next one in a few seconds.


def post_note(store: ObjectStore, run_id: str, note: MachineNote) -> None:
    """Put a machine's word in the place of its earlier one.

    Raises:
        StorageError: the storage cannot be reached.
    """
    key = _key(run_id, note.name)
    data = note.model_dump_json(indent=1).encode() + b"\n"
    for _try in range(5):
        found = store.read(key)
        try:
            store.swap(key, data, found.version if found else None)
        except SwapLost:
            continue
        return
    raise StorageError(f"{store.where(key)} changes all the time; one machine writes it, or should")


def is_over(store: ObjectStore, run_id: str) -> bool:
    """Say whether a run has decided that it is finished, so that no phase comes any more.

    A damaged state says nothing: whoever writes into the run next mends it.
    """
    found = read_text(store, f"runs/{run_id}/state.json")
    try:
        content = parsed_json(found.data) if found else {}
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("finished") is not None


def _key(run_id: str, name: str) -> str:
    return f"runs/{run_id}/machines/{name}.json"
