"""Keeps a worker running on a machine in the cloud, and ends the machine when it is of no use.

It ends for one of five reasons: the machine is about to be taken back, the run is over, nothing was
trained for a while, the parent's lease ran out with nothing to train, or the worker keeps dying.
Whatever trains is asked to save first. Then the machine deletes or stops itself.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from symbio_core.config import GceSettings
from symbio_core.errors import SymbioError
from symbio_core.storage import open_store
from symbio_core.storage.lease import lease_key, parsed
from symbio_core.storage.machine_notes import MachineNote, is_over, post_note

PHASE_PID = "SYMBIO_PHASE_PID"
"""Environment variable that tells a phase's process which file to leave its number in."""
SAVE_S = 25.0
"""What a phase may take to save when the machine has to end (s)."""
WORKER = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "symbio-gpu"]
RETURN_S = 120.0
"""A parent whose lease ran out gets at least this long to come back (s)."""
WORKER_TRIES = 5
"""Times a worker that dies is started again."""


class Metadata:
    """What the machine is told about itself."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host or os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")

    def get(self, path: str, *, wait_s: float = 0.0, etag: str = "") -> tuple[str, str]:
        """Return a value and its tag; with ``wait_s``, once it has changed or the time is up.

        Raises:
            OSError: the metadata server does not answer, or has no such value.
        """
        query = f"?wait_for_change=true&timeout_sec={wait_s:.0f}" if wait_s else ""
        if wait_s and etag:
            query += f"&last_etag={etag}"
        request = urllib.request.Request(
            f"http://{self.host}/computeMetadata/v1/{path}{query}",
            headers={"Metadata-Flavor": "Google"},
        )
        with urllib.request.urlopen(request, timeout=wait_s + 10.0) as answer:
            return answer.read().decode(), str(answer.headers.get("ETag", ""))

    def attribute(self, name: str, default: str = "") -> str:
        """Return an attribute of the machine."""
        try:
            return self.get(f"instance/attributes/{name}")[0]
        except urllib.error.HTTPError:
            return default


@dataclass
class Watchdog:
    """One boot of one machine."""

    home: Path
    metadata: Metadata = field(default_factory=Metadata)
    say: Callable[[str], None] = lambda text: print(f"symbio: {text}", flush=True)

    def __post_init__(self) -> None:
        about = self.metadata
        self.run_id = about.attribute("symbio-run")
        self.store = open_store(about.attribute("symbio-root"))
        self.at_end = about.attribute("symbio-at-end", "delete")
        self.idle_s = float(about.attribute("symbio-idle-s", "600"))
        self.beat_s = float(about.attribute("symbio-beat-s", "5"))
        self.name = about.get("instance/name")[0]
        self.zone = about.get("instance/zone")[0].rpartition("/")[2]
        self.project = about.get("project/project-id")[0]
        self.pid_file = self.home / "phase.pid"
        self.over = threading.Event()
        self.why = ""
        self.worker: subprocess.Popen[bytes] | None = None
        self.beats = 0
        self.boot = uuid.uuid4().hex[:8]
        self.booted = datetime.now(UTC)

    def keep(self) -> None:
        """Keep the worker running until there is a reason to end, then end the machine."""
        signal.signal(signal.SIGTERM, lambda *_: self.end_because("the machine is switched off"))
        threading.Thread(target=self._watch_notice, daemon=True).start()
        # What an earlier boot left: its number may be another process's by now.
        self.pid_file.unlink(missing_ok=True)
        self._note("up")
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - whatever it is, the machine must not stay
            # A machine that nobody watches would run until its cap.
            self.say(f"the watchdog fails: {type(error).__name__}: {error}")
            self.end_because("its watchdog failed")
        self._end()

    def _watch(self) -> None:
        busy = beaten = time.monotonic()
        starts = 0
        while not self.over.wait(min(0.5, self.beat_s)):
            now = time.monotonic()
            if self.worker is None or self.worker.poll() is not None:
                starts += 1
                if starts > WORKER_TRIES:
                    self.end_because("the worker dies again and again")
                    break
                self._start_worker()
            if self.phase() is not None:
                busy, starts = now, 1
            elif now - busy > self.idle_s:
                self.end_because(f"nothing was trained for {self.idle_s:g} s")
            if now - beaten > self.beat_s:
                beaten = now
                self._note("up")
                self._look_for_the_end()

    def end_because(self, why: str) -> None:
        """Ask for the end of the machine; the first reason counts."""
        self.why = self.why or why
        self.over.set()

    def phase(self) -> int | None:
        """Return the process that trains, if one does."""
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if is_alive(pid) else None

    # --- what it looks at

    def _watch_notice(self) -> None:
        etag = ""
        while not self.over.is_set():
            try:
                value, etag = self.metadata.get("instance/preempted", wait_s=60.0, etag=etag)
            except (OSError, http.client.HTTPException):
                time.sleep(1.0)
                continue
            if value.strip().upper() == "TRUE":
                self.end_because("preempted")

    def _look_for_the_end(self) -> None:
        if self.phase() is not None:
            return
        with suppress(SymbioError):
            if is_over(self.store, self.run_id):
                self.end_because("the run is over")
            elif self._is_forsaken():
                self.end_because("no parent holds the run's lease any more")

    def _is_forsaken(self) -> bool:
        # A parent that comes back finds its lease expired, so it gets a while to do so; and whoever
        # started this machine by hand gets as long to start a parent.
        lease = parsed(self.store.read(lease_key(self.run_id)))
        if lease is None:
            return False
        late = datetime.now(UTC) - max(lease.expires, self.booted)
        return late > max(5 * (lease.expires - lease.renewed), timedelta(seconds=RETURN_S))

    def _note(self, state: Literal["up", "ending"]) -> None:
        self.beats += 1
        note = MachineNote(
            name=self.name, beat=self.beats, state=state, why=self.why, boot=self.boot
        )
        try:
            post_note(self.store, self.run_id, note)
        except SymbioError as error:
            self.say(f"cannot tell how the machine is: {error}")

    # --- what it does

    def _start_worker(self) -> None:
        self.say("starting the worker")
        self.worker = subprocess.Popen(
            WORKER,
            env=os.environ | {PHASE_PID: str(self.pid_file)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end(self) -> None:
        self.say(f"ending: {self.why}")
        # The worker first, frozen: it must not take the next phase on a machine that is going.
        if self.worker is not None and self.worker.poll() is None:
            self.worker.send_signal(signal.SIGSTOP)
        self._save_phase()
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
        self._note("ending")
        self._remove()

    def _save_phase(self) -> None:
        pid = self.phase()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + SAVE_S
        while self.phase() is not None and time.monotonic() < until:
            time.sleep(0.05)
        self.say("the phase has saved" if self.phase() is None else "the phase is still saving")

    def _remove(self) -> None:
        from symbio_core.compute.gce import Provisioner

        # The request makes the service press the power button, which ends this process too.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        provisioner = Provisioner(GceSettings(project=self.project))
        try:
            if self.at_end == "delete":
                provisioner.delete_by_name(self.zone, self.name)
            elif machine := provisioner.get(self.zone, self.name):
                provisioner.stop(machine)
        except SymbioError as error:
            self.say(f"cannot {self.at_end} itself ({error}); switching off instead")
            subprocess.run(["shutdown", "-h", "now"], check=False)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def main() -> int:
    """Watch over this machine until it ends."""
    parser = argparse.ArgumentParser(prog="python -m deployments.vm.watchdog", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder on the boot disk")
    Watchdog(parser.parse_args().home).keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
