"""Look at every file of a run: what it is, who needs it, whether it is whole. Changes nothing."""

from __future__ import annotations

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
_MANIFEST = re.compile(r"checkpoints/manifests/\d{10}-[0-9a-f]{16}\.json")
SMALL_BYTES = 1_000_000
"""A file up to this length is always compared with its hash."""
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
    unread: tuple[str, ...] = ()
    """Files of which only the length was compared: those that cost too much to read."""

    @property
    def wrong(self) -> tuple[FileState, ...]:
        """The files that are damaged or missing."""
        return tuple(file for file in self.files if file.health in ("damaged", "missing"))


def check_run(
    run: RunStore,
    needed: Mapping[str, tuple[str, ...]],
    state: Mapping[str, Any] | None = None,
    *,
    most_bytes: int | None = None,
) -> Checkup:
    """Look at every file of a run, also at those that should be there and are not.

    What cannot be seen because the storage root is out of reach is no damage: that raises.

    Args:
        run: the run.
        needed: checkpoints that the journal refers to, with what for.
        state: what the whole journal amounts to, if that is known.
        most_bytes: how much content to read for comparing it with hashes, what is needed most and
            what is small first; of the rest only lengths are compared. None: everything.
    """
    survey = _Survey(run, needed, state, most_bytes=most_bytes)
    files = tuple(survey.files())
    return Checkup(files, tuple(sorted(survey.unread)))


class _Survey:
    def __init__(
        self,
        run: RunStore,
        needed: Mapping[str, tuple[str, ...]],
        state: Mapping[str, Any] | None,
        *,
        most_bytes: int | None,
    ) -> None:
        self.run = run
        self.store = run.store
        self.needed = needed
        self.expected = state
        self.left = most_bytes
        self.unread: set[str] = set()
        self.newest = ""
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
            latest = checkpoints.pointer()
            self.newest = latest.id if latest else ""
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
        names = {*users, *checkpoints.blobs.names()}
        order = {n: (self._is_late(users.get(n, ())), sizes.get(n, 0), n) for n in names}
        for sha256 in sorted(names, key=order.__getitem__):
            name = f"checkpoints/blobs/{sha256}"
            why = self._wrong_content(name, sha256, sizes.get(sha256))
            health: Health | None = None if sha256 in users else "unreferenced"
            self._add(name, why, remedy, users.get(sha256, ()), health)

    def _is_late(self, users: tuple[str, ...]) -> bool:
        """Say whether a blob is compared after those that the run goes on from."""
        uses = {use for checkpoint in users for use in self.needed.get(checkpoint, ())}
        return not uses & {"best", "line"} and self.newest not in users

    def _wrong_content(self, name: str, sha256: str, size: int | None) -> str | None:
        facts = self.store.facts(self._key(name))
        if facts is None:
            return "is missing"
        if size is not None and facts.size != size:
            return f"has {facts.size} bytes instead of {size}"
        told = facts.sha256 if self.left is not None else None
        if told is None and self._costs_too_much(facts.size):
            self.unread.add(name)
            return None
        try:
            found = told or self.store.sha256(self._key(name))
        except Damaged as error:
            return str(error)
        return None if found == sha256 else "does not match its hash"

    def _costs_too_much(self, size: int) -> bool:
        if self.left is None or size <= SMALL_BYTES:
            return False
        is_too_much = size > self.left
        self.left -= 0 if is_too_much else size
        return is_too_much

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
                name, self._wrong_content(name, sha256, size), "resume or --repair makes it anew"
            )

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
