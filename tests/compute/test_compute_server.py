"""The small Compute Engine of the tests is faithful where it matters: what befalls a machine."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import Machine
from symbio_core.config import GceSettings
from tests.cloud.compute_server import ComputeServer, control
from tests.cloud.vm_process import MARK, living
from tests.compute.conftest import HASTY, PROJECT, ZONE, order
from tests.waiting import until

WATCH = """
url=$GCE_METADATA_HOST/computeMetadata/v1/instance/preempted
ask() { curl -s -H 'Metadata-Flavor: Google' "$@"; }
trap 'echo "told to end"; exit 0' TERM
known=$(ask -o /dev/null -D - $url | tr -d '\r' | sed -n 's/^ETag: //p')
echo "watching: $(ask $url)"
(echo "notice: $(ask "$url?wait_for_change=true&timeout_sec=30&last_etag=$known")" ) &
while :; do sleep 0.05; done
"""


def processes(server: ComputeServer, machine: Machine) -> list[int]:
    """Return all living processes of a machine, found by what they inherited."""
    found = []
    for pid in living():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"{MARK}={machine.id}-".encode() in environment:
            found.append(pid)
    return found


def said(provisioner: Provisioner, machine: Machine, text: str) -> None:
    until(lambda: text in provisioner.serial(machine)[0])


def metadata(server: ComputeServer, machine: Machine, path: str, flavor: str = "Google") -> Any:
    process = server.world.vms[machine.zone, machine.name].metadata
    assert process is not None
    headers = {"Metadata-Flavor": flavor}
    url = f"http://{process.host}/computeMetadata/v1/{path}"
    return urlopen(Request(url, headers=headers), timeout=10)


def test_a_preempted_machine_gets_notice_then_sigterm_then_is_gone(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.timings.scale = 1.5 / 120
    machine = provisioner.launch(order(WATCH))
    said(provisioner, machine, "watching: FALSE")
    began = time.monotonic()
    server.world.preempt(machine.zone, machine.name)
    serial = server.world.vms[machine.zone, machine.name].disk.with_suffix(".serial")
    until(lambda: not server.world.vms)
    assert time.monotonic() - began >= 1.5
    lines = serial.read_text().split("\n")
    assert lines.index("notice: TRUE") < lines.index("told to end")
    assert server.bill()[0]["why"] == "preempted"
    assert processes(server, machine) == []


def test_who_ignores_the_power_button_is_unplugged(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.timings.grace_s = 0.2
    machine = provisioner.launch(order("trap '' TERM; echo up; while :; do sleep 0.05; done"))
    said(provisioner, machine, "up")
    provisioner.delete(machine)
    assert processes(server, machine) == []


def test_a_crash_ends_everything_at_once_even_what_left_the_session(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    script = "trap 'echo told' TERM; setsid sh -c 'echo $$ > far; sleep 60' & sleep 60"
    machine = provisioner.launch(order(script))
    disk = server.world.vms[machine.zone, machine.name].disk
    until(lambda: (disk / "far").exists() and len(processes(server, machine)) >= 3)
    server.world.crash(machine.zone, machine.name)
    assert processes(server, machine) == []
    assert "told" not in provisioner.serial(machine)[0]
    now = provisioner.get(machine.zone, machine.name)
    assert now is not None
    assert now.status == "TERMINATED"
    assert (disk / "far").exists()


def test_the_service_ends_a_machine_at_its_cap(
    server: ComputeServer, settings: GceSettings
) -> None:
    server.world.timings.scale = 0.2 / 36
    short = settings.model_copy(update={"max_run_hours": 0.01})
    machine = Provisioner(short, endpoint=server.url, patience=HASTY).launch(order())
    until(lambda: not server.world.vms)
    assert server.bill()[0]["why"] == "delete"
    assert processes(server, machine) == []


def test_a_cap_that_was_outlived_by_a_stop_does_not_end_the_next_start(
    server: ComputeServer, settings: GceSettings
) -> None:
    server.world.timings.scale = 1.0 / 36
    short = settings.model_copy(update={"max_run_hours": 0.01, "at_end": "stop"})
    provisioner = Provisioner(short, endpoint=server.url, patience=HASTY)
    machine = provisioner.launch(order())
    provisioner.stop(machine)
    provisioner.start(machine)
    until(lambda: server.bill()[1]["ended_ms"] is not None)
    assert server.bill()[1]["seconds"] >= 1.0


def test_a_machine_can_switch_itself_off(server: ComputeServer, provisioner: Provisioner) -> None:
    machine = provisioner.launch(order("shutdown -h now; sleep 60"))
    until(lambda: server.world.vms[machine.zone, machine.name].status == "TERMINATED")
    assert server.bill()[0]["why"] == "guestTerminate"


def test_a_machine_can_delete_itself(server: ComputeServer, settings: GceSettings) -> None:
    script = """
    url=$GCE_METADATA_HOST/computeMetadata/v1
    ask() { curl -s -H 'Metadata-Flavor: Google' "$url/$1"; }
    zone=$(ask instance/zone | sed 's|.*/||')
    curl -s -X DELETE $SYMBIO_GCE_ENDPOINT/compute/v1/projects/$(ask project/project-id)\
/zones/$zone/instances/$(ask instance/name)
    sleep 60
    """
    provisioner = Provisioner(settings, endpoint=server.url, patience=HASTY)
    machine = provisioner.launch(order(script))
    until(lambda: not server.world.vms)
    assert processes(server, machine) == []
    assert [stay.why for stay in provisioner.stays(machine.zone, machine.name)] == ["delete"]


def test_each_machine_has_metadata_of_its_own(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    asked = order().model_copy(update={"metadata": {"symbio-phase": "cambrian"}})
    machine = provisioner.launch(asked)
    other = provisioner.launch(order(number=2))
    with metadata(server, machine, "instance/attributes/symbio-phase") as reply:
        assert reply.read() == b"cambrian"
    with pytest.raises(HTTPError, match="404"):
        metadata(server, other, "instance/attributes/symbio-phase")
    with pytest.raises(HTTPError, match="403"):
        metadata(server, machine, "instance/name", flavor="none")


def test_google_auth_takes_a_machine_for_a_real_one(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    script = f"""{sys.executable} -c "
import google.auth, google.auth.transport.requests as transport
credentials, project = google.auth.default()
credentials.refresh(transport.Request())
print(type(credentials).__module__, project, credentials.token)
" 2>&1"""
    machine = provisioner.launch(order(script))
    said(provisioner, machine, f"google.auth.compute_engine.credentials {PROJECT} ya29.test")


def test_waiting_for_an_operation_ends_when_it_is_done(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.timings.provision_s = 0.3
    thread = threading.Thread(target=provisioner.launch, args=[order()])
    thread.start()
    until(lambda: server.world.operations)
    ((_, name),) = server.world.operations
    url = f"{server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/operations/{name}/wait"
    with urlopen(Request(url, method="POST"), timeout=30) as reply:
        assert b'"status": "DONE"' in reply.read()
    thread.join(10.0)


def test_metadata_changes_only_by_who_knows_its_fingerprint(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order())
    own = server.world.vms[machine.zone, machine.name].resource["metadata"]
    item = {"key": "a", "value": "b"}
    url = f"{server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{machine.name}"

    def change(fingerprint: str) -> None:
        body = f'{{"fingerprint": "{fingerprint}", "items": [{{"key": "a", "value": "b"}}]}}'
        urlopen(Request(f"{url}/setMetadata", data=body.encode(), method="POST"), timeout=5).close()

    with pytest.raises(HTTPError, match="412"):
        change("another")
    change(own["fingerprint"])
    assert server.world.vms[machine.zone, machine.name].resource["metadata"]["items"] == [item]
    with metadata(server, machine, "instance/attributes/a") as reply:
        assert reply.read() == b"b"


def test_the_server_runs_as_a_process_of_its_own_and_takes_its_machines_along(
    tmp_path: Path, settings: GceSettings
) -> None:
    command = [sys.executable, "-m", "tests.cloud.compute_server", "--root", str(tmp_path)]
    running = subprocess.Popen(
        [*command, "--env", "COLOUR=green"], stdout=subprocess.PIPE, text=True
    )
    with running as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        provisioner = Provisioner(settings, endpoint=url, patience=HASTY)
        machine = provisioner.launch(order("echo $COLOUR; trap '' TERM; sleep 60"))
        until(lambda: "green" in provisioner.serial(machine)[0])
        control(url, "faults", [{"method": "get", "what": "503"}])
        assert provisioner.get(machine.zone, machine.name) is not None
        control(url, "preempt", zone=machine.zone, name=machine.name)
        assert [row["name"] for row in control(url, "bill")] == [machine.name]
        assert control(url, "state") == {"most_alive": 1, "failures": []}
        process.terminate()
        assert process.wait(30) == 0
    mark = f"{MARK}={machine.id}-1".encode()
    assert not any(mark in environment_of(pid) for pid in living())


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
