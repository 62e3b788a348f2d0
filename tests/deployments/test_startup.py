"""The startup script of a machine, at its first boot and at later ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.surroundings import PROJECT
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import Machine, Order, machine_name
from symbio_core.compute.secret_manager import SecretKeeper
from symbio_core.config import GceSettings
from symbio_core.runner.machines import STARTUP
from tests.cloud.compute_server import ComputeServer
from tests.cloud.storage_server import StorageServer
from tests.compute.conftest import HASTY
from tests.waiting import until

SECRET = "pnu_correct-horse-battery"
# Stands in the archive where the watchdog is: it leaves on the disk what it was started with.
SEEN = """
import json, os, pathlib, sys, time
home = pathlib.Path(sys.argv[2])
names = ("PREFECT_API_KEY", "PREFECT_API_URL", "PWD")
(home / "seen.json").write_text(json.dumps({name: os.environ.get(name) for name in names}))
time.sleep(600)
"""
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Place:
    """A bucket with an archive in it, and machines that boot from it."""

    def __init__(self, gce: ComputeServer, bucket: StorageServer) -> None:
        self.gce, self.bucket = gce, bucket
        self.data = archive()
        self.code = hashlib.sha256(self.data).hexdigest()
        self.provisioner = Provisioner(
            GceSettings(project="my-project", at_end="stop"), endpoint=gce.url, patience=HASTY
        )
        self.secret = SecretKeeper(self.provisioner, "tree").keep("PREFECT_API_KEY", SECRET)

    def store(self, data: bytes) -> None:
        name = f"here/code/{self.code}.tar.gz"
        self.bucket.world.put("runs", {}, {"name": name}, data)

    def boot(self, secret: str = "") -> Machine:
        order = Order(
            run_id="tree",
            name=machine_name("tree", 1, "symbio"),
            zone="us-central1-a",
            spot=True,
            startup_script=(PROJECT / STARTUP).read_text(encoding="utf-8"),
            metadata={
                "symbio-run": "tree",
                "symbio-root": "gs://runs/here",
                "symbio-code": self.code,
                "symbio-prefect-url": "http://127.0.0.1:9/api",
                "symbio-at-end": "stop",
                "symbio-secret-PREFECT_API_KEY": secret or self.secret,
            },
        )
        return self.provisioner.launch(order)

    def seen(self, machine: Machine) -> Path:
        vm = self.gce.world.vms[machine.zone, machine.name]
        return vm.disk / "symbio" / "seen.json"

    def serial(self, machine: Machine) -> str:
        return self.provisioner.serial(machine)[0]


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in {
            "deployments/__init__.py": "",
            "deployments/vm/__init__.py": "",
            "deployments/vm/watchdog.py": SEEN,
        }.items():
            about = tarfile.TarInfo(name)
            about.size = len(text.encode())
            tar.addfile(about, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with StorageServer() as bucket:
        bucket.world.add_bucket("runs")
        env = {
            "PATH": os.environ["PATH"],
            "STORAGE_EMULATOR_HOST": bucket.url,
            "SYMBIO_VM_SECRET_TRIES": "1",
            "SYMBIO_VM_HOME": "symbio",
            "SYMBIO_VM_PYTHON": sys.executable,
            "SYMBIO_VM_LAST_WORDS_S": "0",
        }
        with ComputeServer(tmp_path / "gce", env=env) as gce:
            yield Place(gce, bucket)
    assert gce.world.failures == []


def test_a_secret_reaches_the_worker_and_neither_metadata_nor_the_serial_port(
    place: Place,
) -> None:
    place.store(place.data)
    machine = place.boot()
    until(place.seen(machine).exists)
    until(place.seen(machine).read_text)
    seen = json.loads(place.seen(machine).read_text())
    assert seen["PREFECT_API_KEY"] == SECRET
    assert seen["PREFECT_API_URL"] == "http://127.0.0.1:9/api"
    told = place.serial(machine)
    assert "secret PREFECT_API_KEY is there" in told
    assert SECRET not in told
    assert "ya29" not in told
    assert SECRET not in json.dumps([vm.resource for vm in place.gce.world.vms.values()])


def test_a_second_boot_finds_the_code_on_its_disk(place: Place) -> None:
    place.store(place.data)
    machine = place.boot()
    until(place.seen(machine).exists)
    place.provisioner.stop(machine)
    place.seen(machine).unlink()
    machine = place.provisioner.start(machine)
    until(place.seen(machine).exists)
    assert place.bucket.count("GET", "code/") == 1


def test_code_that_is_not_what_was_stored_is_not_run_and_the_machine_goes(place: Place) -> None:
    place.store(place.data[:-1] + b"?")
    machine = place.boot()
    until(lambda: place.gce.world.vms[machine.zone, machine.name].status == "TERMINATED")
    assert "is not what was stored" in place.serial(machine)
    assert not place.seen(machine).exists()


def test_a_machine_without_its_secret_starts_nothing_and_goes(place: Place) -> None:
    place.store(place.data)
    machine = place.boot("projects/my-project/secrets/another")
    until(lambda: place.gce.world.vms[machine.zone, machine.name].status == "TERMINATED")
    assert "cannot be read" in place.serial(machine)
    assert not place.seen(machine).exists()
