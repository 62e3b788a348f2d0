"""Look at every file of a run: what it is, who needs it, whether it is whole. Changes nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from symbio_core.errors import Damaged
from symbio_core.storage.canonical import parsed_json
from symbio_core.storage.lease import parsed
from symbio_core.storage.objects import read_text
from symbio_core.storage.runs import FOR_PEOPLE, LIST, RunStore

Health = Literal["whole", "damaged", "missing", "unreferenced", "foreign"]
_BLOB = re.compile("checkpoints/blobs/[0-9a-f]{64}")
_MANIFEST = re.compile(r"checkpoints/manifests/\d{10}-[0-9a-f]{16}\.json")
_OTHERS = ("elsewhere/", "machines/", "journal/set-aside-")
"""Objects of other rooms: JSON that is read and written whole."""


@dataclass(frozen=True, slots=True)
class FileState:
    """One file of a run."""

    name: str
    """Below the run's home."""
    size: int
    """Bytes; 0 where it is missing."""
    health: Health
    used_by: tuple[str, ...] = ()
    why: str = ""
    """What is wrong, in one line that names the file; empty where nothing is."""
    remedy: str = ""
    """What mends it."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What became of looking at every file of a run."""

    files: tuple[FileState, ...]
    is_deep: bool
    """Whether contents were compared with their hashes, not only lengths."""

    @property
    def wrong(self) -> tuple[FileState, ...]:
        """The files that are damaged or missing."""
        return tuple(file for file in self.files if file.health in ("damaged", "missing"))


def check_run(
    run: RunStore,
    needed: Mapping[str, tuple[str, ...]],
    state: Mapping[str, Any] | None = None,
    *,
    deep: bool = True,
) -> Checkup:
    """Look at every file of a run, also at those that should be there and are not.

    What cannot be seen because the storage root is out of reach is no damage: that raises.

    Args:
        run: the run.
        needed: checkpoints that the journal refers to, with what for.
        state: what the whole journal amounts to, if that is known.
        deep: compare contents with hashes; otherwise only lengths, which is far quicker.
    """
    return Checkup(tuple(_Survey(run, needed, state, deep=deep).files()), deep)


class _Survey:
    def __init__(
        self,
        run: RunStore,
        needed: Mapping[str, tuple[str, ...]],
        state: Mapping[str, Any] | None,
        *,
        deep: bool,
    ) -> None:
        self.run = run
        self.store = run.store
        self.needed = needed
        self.expected = state
        self.deep = deep
        home = f"{run.home}/"
        self.keys = [key.removeprefix(home) for key in self.store.keys(home)]
        self.found: dict[str, FileState] = {}

    def files(self) -> list[FileState]:
        self._config()
        self._journal()
        self._state()
        self._lease()
        self._checkpoints()
        self._for_people()
        self._others()
        return [self.found[name] for name in sorted(self.found)]

    def _add(
        self,
        name: str,
        why: str | None,
        remedy: str,
        used_by: tuple[str, ...] = (),
        health: Health | None = None,
    ) -> None:
        size = self.store.size(self._key(name))
        bad: Health = "missing" if size is None else "damaged"
        if why is not None and self._where(name) not in why:
            why = f"{self._where(name)}: {why}"
        self.found[name] = FileState(
            name=name,
            size=size or 0,
            health=health or (bad if why is not None else "whole"),
            used_by=used_by,
            why=" ".join(why.split()) if why else "",
            remedy=remedy if why else "",
        )

    def _config(self) -> None:
        self._add("config.json", self.run.wrong_config(), "resume or --repair writes it anew")

    def _journal(self) -> None:
        remedy = "put back a copy, or --repair goes back to what stands before it"
        home = self.run.journal.home.removeprefix(f"{self.run.home}/")
        segments = self.run.journal.survey()
        for key, why in segments.items():
            self._add(home + key.rpartition("/")[2], why, remedy)
        for number in range(len(segments), min(self.run.segments_told(), len(segments) + 100)):
            name = f"{home}{number:08d}.jsonl"
            self._add(name, "is missing: the state was written after it", "resume lives it again")

    def _state(self) -> None:
        remedy = "resume or --repair writes it anew"
        try:
            state = self.run.read_state()
        except Damaged as error:
            self._add("state.json", str(error), remedy)
            return
        if "state.json" in self.keys:
            # A process that ended between journal and state leaves an older state, which is whole.
            told = self.run.segments_told()
            is_newest = told == 0 or told >= len(self.run.journal.survey())
            is_wrong = is_newest and self.expected is not None and (state or {}) != self.expected
            why = "is not what the journal amounts to (damaged, or of another version)"
            self._add("state.json", why if is_wrong else None, remedy)
        elif any(name.startswith("journal/") for name in self.keys):
            self._add("state.json", "is missing", remedy)

    def _lease(self) -> None:
        if "LEASE" in self.keys:
            try:
                is_whole = parsed(read_text(self.store, self._key("LEASE"))) is not None
                why = None if is_whole else "is damaged"
            except Damaged as error:
                why = str(error)
            self._add("LEASE", why, "the next writer mends it")

    def _checkpoints(self) -> None:
        checkpoints = self.run.checkpoints
        manifests, _ = checkpoints.survey()
        readable = {manifest.id: manifest for manifest in manifests}
        remedy = "put back a copy; else resume goes on from the newest whole checkpoint"
        names = {n for n in self.keys if _MANIFEST.fullmatch(n)}
        for name in names | {f"checkpoints/manifests/{one}.json" for one in self.needed}:
            checkpoint = name.rpartition("/")[2].removesuffix(".json")
            why = None if checkpoint in readable else "is missing or does not match its hash"
            used_by = self.needed.get(checkpoint, ())
            is_ours = why or used_by or readable[checkpoint].run_id == self.run.run_id
            self._add(name, why, remedy, used_by, None if is_ours else "foreign")
        try:
            checkpoints.pointer()
            pointer = None if "checkpoints/LATEST" in self.keys else "is missing"
        except Damaged as error:
            pointer = str(error)
        if manifests or "checkpoints/LATEST" in self.keys:
            self._add("checkpoints/LATEST", pointer, "resume or --repair writes it anew")
        users: dict[str, tuple[str, ...]] = {}
        sizes: dict[str, int] = {}
        for manifest in manifests:
            for part in manifest.parts.values():
                users[part.sha256] = (*users.get(part.sha256, ()), manifest.id)
                sizes[part.sha256] = part.size
        for sha256 in sorted({*users, *checkpoints.blobs.names()}):
            why = self._wrong_blob(sha256, sizes.get(sha256))
            health: Health | None = None if sha256 in users else "unreferenced"
            self._add(f"checkpoints/blobs/{sha256}", why, remedy, users.get(sha256, ()), health)

    def _wrong_blob(self, sha256: str, size: int | None) -> str | None:
        key = f"{self.run.checkpoints.blobs.home}{sha256}"
        if not self.deep:
            there = self.store.size(key)
            return None if there == (size if size is not None else there) else "has another length"
        try:
            self.run.checkpoints.blobs.get(sha256, size)
        except Damaged as error:
            return str(error)
        return None

    def _for_people(self) -> None:
        try:
            listed = self.run.files_listed()
        except Damaged as error:
            self._add(LIST, str(error), "resume or `symbio report` writes it anew")
            return
        is_missing = LIST not in self.keys and any(n.startswith(FOR_PEOPLE) for n in self.keys)
        if listed or is_missing:
            why = "is missing: nobody knows any more what those files should hold"
            self._add(LIST, why if is_missing else None, "resume or --repair makes them anew")
        for name, (sha256, size) in listed.items():
            self._add(
                name, self._wrong_file(name, sha256, size), "resume or --repair makes it anew"
            )

    def _wrong_file(self, name: str, sha256: str, size: int) -> str | None:
        there = self.store.size(self._key(name))
        if there is None:
            return "is missing"
        if there != size:
            return f"has {there} bytes instead of {size}"
        try:
            found = self.store.read(self._key(name)) if self.deep else None
        except Damaged as error:
            return str(error)
        if found is not None and hashlib.sha256(found.data).hexdigest() != sha256:
            return "does not match its hash"
        return None

    def _others(self) -> None:
        for name in self.keys:
            if name in self.found:
                continue
            if not name.startswith(_OTHERS):
                self._add(name, None, "", health="foreign")
            elif name.startswith("journal/"):
                self._add(name, None, "", ("set aside",))
            else:
                self._add(name, self._wrong_json(name), "delete it and resume")

    def _wrong_json(self, name: str) -> str | None:
        try:
            found = read_text(self.store, self._key(name))
            parsed_json(found.data if found else b"")
        except Damaged as error:
            return str(error)
        except ValueError as error:
            return f"is damaged ({error})"
        return None

    def _key(self, name: str) -> str:
        return f"{self.run.home}/{name}"

    def _where(self, name: str) -> str:
        return self.store.where(self._key(name))
