"""What a machine in the cloud starts from: its code, its attributes, and the watchdog's reasons."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from deployments.surroundings import PROJECT
from symbio_core.compute.archive import LEFT_OUT, address, packed
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import Machine, Order, check_metadata, machine_name
from symbio_core.config import GceSettings, changed
from symbio_core.errors import ConfigError
from symbio_core.profiles import profile
from symbio_core.runner.machines import STARTUP, attributes
from symbio_core.storage import open_store
from symbio_core.storage.lease import Holder, LeaseFile, lease_key
from symbio_core.storage.machine_notes import MachineNote, is_over, read_note
from tests.cloud.compute_server import ComputeServer, Timings
from tests.compute.conftest import HASTY
from tests.waiting import until

WATCH = """
import sys
from pathlib import Path
from deployments.vm import watchdog
watchdog.WORKER = [sys.executable, "-c", {worker!r}]
watchdog.RETURN_S = {return_s}
watchdog.Watchdog(Path.cwd()).keep()
"""
PHASE = """
import os, pathlib, signal, sys, time
home = pathlib.Path(os.environ["SYMBIO_PHASE_PID"])
def save(*_):
    (home.parent / "saved").write_text("yes")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
home.write_text(str(os.getpid()))
while True:
    time.sleep(0.1)
"""
WORKER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PHASE!r}])"
IDLE = "import time; time.sleep(600)"


def test_the_same_code_gives_the_same_bytes_whenever_it_is_packed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with tarfile.open(fileobj=io.BytesIO(packed(PROJECT))) as tar:
        tar.extractall(copy, filter="data")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert address(packed(copy)) == address(packed(PROJECT))


def test_another_line_of_code_gives_another_address(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(PROJECT))) as tar:
        tar.extractall(tmp_path, filter="data")
    file = tmp_path / "flows" / "phases.py"
    file.write_text(file.read_text(encoding="utf-8") + "# \n", encoding="utf-8")
    assert address(packed(tmp_path)) != address(packed(PROJECT))


def test_the_archive_holds_what_a_worker_needs_and_nothing_that_was_run() -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(PROJECT))) as tar:
        names = tar.getnames()
    assert {"prefect.yaml", "constraints.txt", "flows/phases.py", "deployments/vm/startup.sh"} <= {
        *names
    }
    assert not [name for name in names if any(part in name for part in LEFT_OUT)]
    assert not [name for name in names if name.startswith(("tests/", "storage/", ".venv"))]


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefect\.yaml"):
        packed(tmp_path)


def test_a_secret_itself_is_refused_and_only_its_name_reaches_the_metadata() -> None:
    where = "projects/p/secrets/prefect-key"
    config = changed(profile("l4"), {"compute.elsewhere.secrets": {"PREFECT_API_KEY": where}})
    told = attributes(config, "tree", "0" * 64, "http://10.0.0.2:4200/api")
    check_metadata(told)
    assert told["symbio-secret-PREFECT_API_KEY"] == where
    with pytest.raises(ConfigError, match="a user or a password before '@'"):
        check_metadata({"symbio-prefect-url": "https://admin:pw@host/api"})
    check_metadata({"symbio-prefect-url": "https://host/api/@team", "symbio-root": "gs://b/a@b"})
    with pytest.raises(ConfigError, match="has to name a secret"):
        changed(profile("l4"), {"compute.elsewhere.secrets": {"PREFECT_API_KEY": "pnu_123"}})


def test_the_startup_script_fits_into_the_metadata_and_parses() -> None:
    script = PROJECT / STARTUP
    assert script.stat().st_size < 256 * 1024
    subprocess.run(["bash", "-n", str(script)], check=True)


# --- the watchdog, on a machine of the small Compute Engine


class Guarded:
    """A machine whose startup script is the real watchdog with a worker of the test's own."""

    def __init__(self, server: ComputeServer, root: Path) -> None:
        self.server = server
        self.root = str(root)
        self.provisioner = Provisioner(
            GceSettings(project="my-project"), endpoint=server.url, patience=HASTY
        )
        self.name = machine_name("tree", 1, "symbio")

    def boot(
        self,
        worker: str,
        *,
        at_end: Literal["delete", "stop"] = "delete",
        idle_s: float = 600.0,
        return_s: float = 120.0,
    ) -> Machine:
        watch = WATCH.format(worker=worker, return_s=return_s)
        path = f"{PROJECT}:$PYTHONPATH"
        script = f"#!/bin/bash\nPYTHONPATH={path} exec {sys.executable} - <<'END'\n{watch}\nEND"
        order = Order(
            run_id="tree",
            name=self.name,
            zone="us-central1-a",
            spot=True,
            startup_script=script,
            metadata={
                "symbio-run": "tree",
                "symbio-root": self.root,
                "symbio-at-end": at_end,
                "symbio-idle-s": str(idle_s),
                "symbio-beat-s": "0.2",
            },
        )
        self.provisioner.settings = GceSettings(project="my-project", at_end=at_end)
        return self.provisioner.launch(order)

    def note(self) -> MachineNote | None:
        return read_note(open_store(self.root), "tree", self.name)

    def status(self) -> str:
        machine = self.provisioner.get("us-central1-a", self.name)
        return machine.status if machine else "gone"

    def file(self, machine: Machine, name: str) -> Path:
        vm = self.server.world.vms[machine.zone, machine.name]
        return vm.disk / name


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    with ComputeServer(tmp_path / "gce", env=env, timings=Timings(scale=0.1)) as server:
        yield Guarded(server, tmp_path / "storage")
    assert server.world.failures == []


def ending(guarded: Guarded) -> str:
    until(lambda: (note := guarded.note()) and note.state == "ending")
    note = guarded.note()
    assert note is not None
    return note.why


def leave_lease(guarded: Guarded, *, ttl_s: float) -> None:
    """Leave a lease as a parent does that died an hour ago."""
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    lease = LeaseFile(
        epoch=1,
        holder=Holder(host="laptop", pid=1, nonce="gone"),
        since=an_hour_ago,
        renewed=an_hour_ago,
        expires=an_hour_ago + timedelta(seconds=ttl_s),
    )
    data = lease.model_dump_json().encode()
    open_store(guarded.root).swap(lease_key("tree"), data, None)


def test_a_machine_that_is_taken_back_has_its_phase_saved_first(guarded: Guarded) -> None:
    machine = guarded.boot(WORKER, at_end="stop")
    until(lambda: guarded.file(machine, "phase.pid").exists())
    guarded.server.world.preempt(machine.zone, machine.name)
    assert ending(guarded) == "preempted"
    assert guarded.file(machine, "saved").exists()
    until(lambda: guarded.status() == "TERMINATED")


def test_a_machine_that_trains_nothing_removes_itself(guarded: Guarded) -> None:
    guarded.boot(IDLE, idle_s=0.5)
    assert "nothing was trained" in ending(guarded)
    until(lambda: guarded.status() == "gone")


def test_a_machine_whose_run_is_over_removes_itself(guarded: Guarded) -> None:
    guarded.boot(IDLE)
    until(guarded.note)
    assert guarded.status() == "RUNNING"
    open_store(guarded.root).swap("runs/tree/state.json", b'{"finished": "done"}', None)
    assert is_over(open_store(guarded.root), "tree")
    assert ending(guarded) == "the run is over"
    until(lambda: guarded.status() == "gone")


def test_a_machine_that_no_parent_holds_any_more_removes_itself(guarded: Guarded) -> None:
    # The other two layers are broken: the service keeps no cap, no parent lives, nobody sweeps.
    guarded.server.world.keeps_caps = False
    leave_lease(guarded, ttl_s=0.1)
    guarded.boot(IDLE, return_s=0.5)
    assert "no parent" in ending(guarded)
    until(lambda: guarded.status() == "gone")


def test_a_machine_that_was_started_by_hand_waits_for_a_parent(guarded: Guarded) -> None:
    leave_lease(guarded, ttl_s=60.0)
    guarded.boot(IDLE)
    until(lambda: (note := guarded.note()) and (note.beat > 5 or note.state == "ending"))
    note = guarded.note()
    assert note is not None
    assert (note.state, note.why) == ("up", "")


def test_a_machine_whose_worker_keeps_dying_removes_itself(guarded: Guarded) -> None:
    guarded.boot("raise SystemExit(1)")
    assert "the worker dies" in ending(guarded)
    until(lambda: guarded.status() == "gone")


def test_a_machine_that_may_not_delete_itself_switches_itself_off(guarded: Guarded) -> None:
    guarded.server.fail("delete", 403, count=1000)
    guarded.boot(IDLE, idle_s=0.5)
    until(lambda: guarded.status() == "TERMINATED")
