"""What the Compute Engine of the tests holds: machines, operations, capacity, quotas, a bill."""

from __future__ import annotations

import heapq
import itertools
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cloud.metadata_server import MetadataServer
from tests.cloud.vm_process import VmProcess
from tests.loopback import guard

ZONES = tuple(
    f"{region}-{letter}"
    for region, letters in {
        "us-central1": "abcf",
        "us-east1": "bcd",
        "us-east4": "ac",
        "us-west1": "abc",
        "europe-west4": "abc",
    }.items()
    for letter in letters
)
MACHINE_TYPES = {
    "g2-standard-4": (4, 16384, "nvidia-l4", 1),
    "g2-standard-8": (8, 32768, "nvidia-l4", 1),
    "e2-small": (2, 2048, None, 0),
}
STOCKOUT = (
    "The zone 'projects/{project}/zones/{zone}' does not have enough resources available to "
    "fulfill the request. Try a different zone, or try again later."
)


NOT_READY = ("RESOURCE_NOT_READY", "The machine was taken away meanwhile", "")


class Rejected(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class Timings:
    """How fast this world is (s); Google's own figures are in the comments."""

    provision_s: float = 0.03  # 5-30
    stage_s: float = 0.03  # 5-20
    stop_s: float = 0.03  # a few
    grace_s: float = 3.0  # up to 30 between the power button and the plug
    scale: float = 1.0
    """Real seconds for a second of maxRunDuration and of the preemption notice."""


@dataclass
class Fault:
    """What goes wrong with the next ``count`` requests that match."""

    method: str
    """insert, delete, get, list, aggregatedList, wait, serialPort … or * for all."""
    what: str
    """An HTTP status, `reset`, `lost_reply`, `stall:SECONDS`, or an operation's error code."""
    zone: str | None = None
    count: int = 1
    skip: int = 0
    """Requests that match and are let through first."""
    spot: bool | None = None
    message: str | None = None
    reason: str | None = None
    zones_available: str | None = None

    def matches(self, method: str, zone: str | None, spot: bool | None) -> bool:
        return (
            self.count > 0
            and self.method in ("*", method)
            and self.zone in (None, zone)
            and self.spot in (None, spot)
        )


@dataclass
class Vm:
    """One machine: what the API says of it, its disk, and its processes while it runs."""

    resource: dict[str, Any]
    zone: str
    disk: Path
    process: VmProcess | None = None
    metadata: MetadataServer | None = None
    boots: int = 0
    charge: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return str(self.resource["name"])

    @property
    def status(self) -> str:
        return str(self.resource["status"])

    @property
    def is_spot(self) -> bool:
        return bool(self.resource["scheduling"].get("provisioningModel") == "SPOT")


@dataclass
class World:
    """The state of one project, moved on by one thread that keeps appointments."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    """What every machine's processes find in their environment."""
    timings: Timings = field(default_factory=Timings)
    base: str = ""
    vms: dict[tuple[str, str], Vm] = field(default_factory=dict)
    disks: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    operations: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    bill: list[dict[str, Any]] = field(default_factory=list)
    stockouts: set[tuple[str, bool]] = field(default_factory=set)
    """Zones without room, for spot (True) or at full price (False)."""
    quotas: dict[str, dict[str, float]] = field(default_factory=dict)
    """Limits by region; `global` holds the project's own."""
    keeps_caps: bool = True
    """Whether machines end at their maxRunDuration, as they should."""
    most_alive: int = 0
    """Most machines that ever ran or were about to, at one time."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.wake = threading.Condition(self.lock)
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.count = itertools.count(1)
        self.is_open = True
        self.failures: list[str] = []
        self.ids = itertools.count(time.time_ns())
        self.thread = threading.Thread(target=self._keep_appointments, daemon=True)
        self.thread.start()

    # --- time

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        with self.wake:
            heapq.heappush(self.agenda, (time.monotonic() + delay_s, next(self.count), action))
            self.wake.notify_all()

    def _keep_appointments(self) -> None:
        while True:
            with self.wake:
                while self.is_open and not (self.agenda and self.agenda[0][0] <= time.monotonic()):
                    due = self.agenda[0][0] - time.monotonic() if self.agenda else None
                    self.wake.wait(due)
                if not self.is_open:
                    return
                _, _, action = heapq.heappop(self.agenda)
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - told by the server at its end
                    self.failures.append(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Pull the plug of everything."""
        with self.wake:
            self.is_open = False
            self.wake.notify_all()
            for vm in self.vms.values():
                self._unplug(vm)
        self.thread.join(10.0)

    # --- what is asked of a machine

    def insert(self, project: str, zone: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("name", "")
        if (zone, name) in self.vms:
            where = f"projects/{project}/zones/{zone}/instances/{name}"
            raise Rejected(409, "alreadyExists", f"The resource '{where}' already exists")
        kind = body.get("machineType", "").rpartition("/")[2]
        if kind not in MACHINE_TYPES:
            raise Rejected(400, "invalid", f"Invalid value for machineType: '{kind}'")
        for item in body.get("metadata", {}).get("items", []):
            if len(item.get("value", "")) > 256 * 1024:
                raise Rejected(400, "invalid", f"Metadata value of '{item['key']}' is too large")
        scheduling = body.setdefault("scheduling", {})
        seconds = scheduling.get("maxRunDuration", {}).get("seconds")
        if seconds is not None and int(seconds) < 30:
            raise Rejected(400, "invalid", "maxRunDuration must be at least 30 seconds")
        vm = Vm(self._described(project, zone, body), zone, self.root / "disks" / self._id())
        wrong = self._no_room(project, zone, vm, "insert")
        self.vms[zone, name] = vm
        self.attach(vm)
        self._count_alive()
        operation = self.operation(project, zone, "insert", vm)
        self.after(self.timings.provision_s, lambda: self._stage(vm, operation, wrong))
        return operation

    def attach(self, vm: Vm) -> None:
        """Make the boot disk that an instance asks for."""
        asked = vm.resource["disks"][0].get("initializeParams", {})
        link = vm.resource["zone"] + f"/disks/{vm.name}"
        self.disks[vm.zone, vm.name] = {
            "kind": "compute#disk", "id": self._id(), "name": vm.name, "zone": vm.resource["zone"],
            "sizeGb": asked.get("diskSizeGb", "50"), "labels": asked.get("labels", {}),
            "status": "READY", "users": [vm.resource["selfLink"]], "selfLink": link,
            "creationTimestamp": stamp(now_ms()),
        }  # fmt: skip

    def delete_disk(self, project: str, zone: str, name: str) -> dict[str, Any]:
        disk = self.disks.get((zone, name))
        if disk is None:
            raise Rejected(404, "notFound", f"The resource 'disks/{name}' was not found")
        if disk.get("users"):
            raise Rejected(400, "resourceInUseByAnotherResource", f"The disk '{name}' is in use")
        del self.disks[zone, name]
        return self._at_once(self.operation(project, zone, "delete", Vm(disk, zone, self.root)))

    def start(self, project: str, zone: str, name: str) -> dict[str, Any]:
        vm = self.vm(zone, name)
        if vm.status != "TERMINATED":
            raise Rejected(400, "resourceNotReady", f"The resource '{name}' is {vm.status}")
        wrong = self._no_room(project, zone, vm, "start")
        operation = self.operation(project, zone, "start", vm)
        vm.resource["status"] = "PROVISIONING"
        self._count_alive()
        self.after(self.timings.provision_s, lambda: self._stage(vm, operation, wrong))
        return operation

    def end(self, project: str, zone: str, name: str, kind: str) -> dict[str, Any]:
        """Stop or delete a machine as a person would: the power button, then the plug."""
        vm = self.vm(zone, name)
        operation = self.operation(project, zone, kind, vm)
        self._press_button(vm, operation, "delete" if kind == "delete" else "stop", kind)
        return operation

    def set_labels(self, project: str, zone: str, name: str, body: dict[str, Any]) -> Any:
        return self._fingered(project, zone, name, body, "labels", "labelFingerprint", "setLabels")

    def set_metadata(self, project: str, zone: str, name: str, body: dict[str, Any]) -> Any:
        vm = self.vm(zone, name)
        self._check_fingerprint(vm.resource["metadata"]["fingerprint"], body.get("fingerprint"))
        vm.resource["metadata"] = {**body, "fingerprint": self._id()}
        if vm.metadata:
            items = {item["key"]: item.get("value", "") for item in body.get("items", [])}
            vm.metadata.set("instance/attributes", items)
        return self._at_once(self.operation(project, zone, "setMetadata", vm))

    def _fingered(
        self, project: str, zone: str, name: str, body: dict[str, Any], *keys: str
    ) -> dict[str, Any]:
        vm = self.vm(zone, name)
        what, mark, method = keys
        self._check_fingerprint(vm.resource[mark], body.get(mark))
        vm.resource[what], vm.resource[mark] = body.get(what, {}), self._id()
        return self._at_once(self.operation(project, zone, method, vm))

    def _check_fingerprint(self, own: str, given: str | None) -> None:
        if given != own:
            raise Rejected(412, "conditionNotMet", "Supplied fingerprint does not match current")

    # --- what befalls a machine

    def preempt(self, zone: str, name: str) -> dict[str, Any]:
        """Take a spot machine back: the notice, the power button, the plug."""
        vm = self.vm(zone, name)
        if not vm.is_spot or vm.status != "RUNNING":
            raise Rejected(400, "invalid", f"{name} is no running spot machine")
        operation = self.operation("system", zone, "compute.instances.preempted", vm)
        notice = vm.resource["scheduling"].get("preemptionNoticeDuration", {}).get("seconds", 0)
        assert vm.metadata is not None
        vm.metadata.set("instance/preempted", "TRUE")
        action = vm.resource["scheduling"].get("instanceTerminationAction", "STOP").lower()
        boot = vm.boots

        def press() -> None:
            if vm.status == "RUNNING" and vm.boots == boot:
                self._press_button(vm, operation, action, "preempted")
            else:
                # Something else ended it before.
                self.finish(operation, NOT_READY)

        self.after(int(notice) * self.timings.scale, press)
        return operation

    def crash(self, zone: str, name: str) -> dict[str, Any]:
        """Let the host die: everything ends at once, nobody is told."""
        vm = self.vm(zone, name)
        if vm.status != "RUNNING":
            raise Rejected(400, "invalid", f"{name} does not run")
        operation = self.operation("system", zone, "compute.instances.hostError", vm)
        vm.resource["status"] = "STOPPING"
        self._unplug(vm)
        self._over(vm, operation, "stop", "hostError")
        return operation

    def guest_off(self, zone: str, name: str) -> dict[str, Any]:
        """Shut down from inside."""
        vm = self.vm(zone, name)
        operation = self.operation("system", zone, "compute.instances.guestTerminate", vm)
        self._press_button(vm, operation, "stop", "guestTerminate")
        return operation

    # --- the state machine

    def _stage(self, vm: Vm, operation: dict[str, Any], wrong: tuple[str, str, str] | None) -> None:
        if self.vms.get((vm.zone, vm.name)) is not vm or vm.status != "PROVISIONING":
            # A delete or a stop overtook it.
            self.finish(operation, NOT_READY)
            return
        if wrong:
            if operation["operationType"] == "insert":
                del self.vms[vm.zone, vm.name]
                self._forget(vm)
            else:
                vm.resource["status"] = "TERMINATED"
            self.finish(operation, wrong)
            return
        vm.resource["status"] = "STAGING"
        self.after(self.timings.stage_s, lambda: self._run(vm, operation))

    def _run(self, vm: Vm, operation: dict[str, Any]) -> None:
        if self.vms.get((vm.zone, vm.name)) is not vm or vm.status != "STAGING":
            self.finish(operation, NOT_READY)
            return
        vm.boots += 1
        now = self.finish(operation)
        vm.resource |= {"status": "RUNNING", "lastStartTimestamp": stamp(now)}
        vm.charge = {
            "name": vm.name, "zone": vm.zone, "id": vm.resource["id"], "spot": vm.is_spot,
            "machine_type": vm.resource["machineType"].rpartition("/")[2],
            "started_ms": now, "ended_ms": None, "why": "running",
        }  # fmt: skip
        self.bill.append(vm.charge)
        self._boot(vm)
        seconds = vm.resource["scheduling"].get("maxRunDuration", {}).get("seconds")
        if seconds is not None and self.keeps_caps:
            boot = vm.boots
            self.after(int(seconds) * self.timings.scale, lambda: self._time_is_up(vm, boot))

    def _boot(self, vm: Vm) -> None:
        vm.disk.mkdir(parents=True, exist_ok=True)
        items = {i["key"]: i.get("value", "") for i in vm.resource["metadata"].get("items", [])}
        vm.metadata = MetadataServer(self._metadata(vm, items))
        env = {
            "HOME": str(vm.disk),
            "PATH": f"{self._shims(vm)}:{self.env.get('PATH', '/usr/bin:/bin')}",
            "GCE_METADATA_HOST": vm.metadata.host,
            # google-auth first knocks at the address, then asks by name.
            "GCE_METADATA_IP": vm.metadata.host,
            "LANG": "C.UTF-8",
        }
        script = items.get("startup-script", "")
        mark = f"{vm.resource['id']}-{vm.boots}"
        serial = vm.disk.parent / f"{vm.disk.name}.serial"
        here = guard.environment(self.env.get("PYTHONPATH"))
        vm.process = VmProcess(script, vm.disk, serial, mark, {**self.env, **here, **env})

    def _shims(self, vm: Vm) -> Path:
        """Return a folder with the commands that would switch this very machine off."""
        folder = vm.disk.parent / f"{vm.disk.name}.bin"
        folder.mkdir(exist_ok=True)
        url = f"{self.base}/control/guest_off?zone={vm.zone}&name={vm.name}"
        for name in ("shutdown", "poweroff", "halt"):
            file = folder / name
            file.write_text(f"#!/bin/sh\nexec curl -s -X POST '{url}'\n", encoding="utf-8")
            file.chmod(0o755)
        return folder

    def _metadata(self, vm: Vm, items: dict[str, str]) -> dict[str, Any]:
        account = vm.resource.get("serviceAccounts", [{}])[0]
        project = vm.resource["zone"].split("/projects/")[1].split("/")[0]
        token = {"access_token": "ya29.test", "expires_in": 3599, "token_type": "Bearer"}
        who = {
            "email": account.get("email", "default"), "aliases": "default",
            "scopes": "\n".join(account.get("scopes", [])), "token": token,
        }  # fmt: skip
        return {
            "instance": {
                "id": vm.resource["id"], "name": vm.name, "attributes": items,
                "zone": f"projects/1/zones/{vm.zone}", "preempted": "FALSE",
                "maintenance-event": "NONE", "service-accounts": {"default": who},
                "machine-type": vm.resource["machineType"],
            },
            "project": {"project-id": project, "numeric-project-id": "1"},
            "universe": {"universe-domain": "googleapis.com"},
        }  # fmt: skip

    def _time_is_up(self, vm: Vm, boot: int) -> None:
        if self.vms.get((vm.zone, vm.name)) is vm and vm.status == "RUNNING" and vm.boots == boot:
            action = vm.resource["scheduling"].get("instanceTerminationAction", "STOP").lower()
            operation = self.operation("system", vm.zone, action, vm)
            self._press_button(vm, operation, action, action)

    def _press_button(self, vm: Vm, operation: dict[str, Any], action: str, why: str) -> None:
        if self.vms.get((vm.zone, vm.name)) is not vm:
            self.finish(operation)
            return
        again = lambda: self._press_button(vm, operation, action, why)  # noqa: E731
        if vm.status == "STOPPING":
            # Somebody pressed it before: what is asked for now comes after that.
            self.after(self.timings.stop_s, again)
            return
        if vm.process is None:
            boot = vm.boots
            late = lambda: (  # noqa: E731
                again() if vm.boots != boot else self._over(vm, operation, action, why)
            )
            self.after(self.timings.stop_s, late)
            return
        vm.resource["status"] = "STOPPING"
        items = {i["key"]: i.get("value", "") for i in vm.resource["metadata"].get("items", [])}
        if items.get("shutdown-script"):
            vm.process.run_shutdown_script(items["shutdown-script"])
        vm.process.signal(signal.SIGTERM)
        plug_at = time.monotonic() + self.timings.grace_s
        look = lambda: self._await_end(vm, operation, action, why, plug_at)  # noqa: E731
        self.after(self.timings.stop_s, look)

    def _await_end(self, vm: Vm, operation: Any, action: str, why: str, plug_at: float) -> None:
        if vm.process is not None and vm.process.members() and time.monotonic() < plug_at:
            look = lambda: self._await_end(vm, operation, action, why, plug_at)  # noqa: E731
            self.after(0.03, look)
            return
        self._over(vm, operation, action, why)

    def _over(self, vm: Vm, operation: dict[str, Any], action: str, why: str) -> None:
        self._unplug(vm)
        now = self.finish(operation)
        if vm.charge is not None:
            vm.charge |= {"ended_ms": now, "why": why}
            vm.charge = None
        if self.vms.get((vm.zone, vm.name)) is not vm:
            return
        if action == "delete":
            del self.vms[vm.zone, vm.name]
            self._forget(vm)
        else:
            vm.resource |= {"status": "TERMINATED", "lastStopTimestamp": stamp(now)}

    def _unplug(self, vm: Vm) -> None:
        if vm.process is not None:
            vm.process.kill()
            vm.process = None
        if vm.metadata is not None:
            threading.Thread(target=vm.metadata.close, daemon=True).start()
            vm.metadata = None

    def _forget(self, vm: Vm) -> None:
        # The disk goes; what it wrote to its serial port stays for whoever looks for a mistake.
        shutil.rmtree(vm.disk, ignore_errors=True)
        if vm.resource["disks"][0].get("autoDelete"):
            self.disks.pop((vm.zone, vm.name), None)
        else:
            self.disks[vm.zone, vm.name].pop("users", None)

    # --- room

    def _no_room(self, project: str, zone: str, vm: Vm, method: str) -> tuple[str, str, str] | None:
        for fault in self.faults:
            if fault.what.isupper() and fault.matches(method, zone, vm.is_spot):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.count -= 1
                text = fault.message or STOCKOUT.format(project=project, zone=zone)
                return fault.what, text, fault.zones_available or ""
        if (zone, vm.is_spot) in self.stockouts:
            text = STOCKOUT.format(project=project, zone=zone)
            return "ZONE_RESOURCE_POOL_EXHAUSTED", text, ""
        return self._over_quota(zone, vm)

    def _over_quota(self, zone: str, vm: Vm) -> tuple[str, str, str] | None:
        region = zone.rpartition("-")[0]
        for where, metrics in self.usage().items():
            for metric, (limit, used) in metrics.items():
                gpus = gpus_of(vm, metric) if where in ("global", region) else 0
                if gpus and used + gpus > limit:
                    scope = "globally" if where == "global" else f"in region {region}"
                    text = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {scope}."
                    return "QUOTA_EXCEEDED", text, ""
        return None

    def usage(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Return limit and usage of every quota, by region."""
        alive = [vm for vm in self.vms.values() if vm.status != "TERMINATED"]
        return {
            where: {
                metric: (
                    limit,
                    sum(
                        gpus_of(vm, metric)
                        for vm in alive
                        if where in ("global", vm.zone.rpartition("-")[0])
                    ),
                )
                for metric, limit in limits.items()
            }
            for where, limits in self.quotas.items()
        }

    def _count_alive(self) -> None:
        asleep = ("TERMINATED", "STOPPING")
        alive = sum(vm.status not in asleep for vm in self.vms.values())
        self.most_alive = max(self.most_alive, alive)

    # --- operations

    def operation(self, project: str, zone: str, kind: str, vm: Vm) -> dict[str, Any]:
        name = f"operation-{uuid.uuid4().hex[:20]}"
        operation = {
            "kind": "compute#operation", "id": self._id(), "name": name, "operationType": kind,
            "status": "RUNNING", "progress": 0, "insertTime": stamp(now_ms()),
            "startTime": stamp(now_ms()), "targetId": vm.resource["id"],
            "targetLink": vm.resource["selfLink"], "zone": vm.resource["zone"],
            "user": "system" if project == "system" else f"person@{project}",
        }  # fmt: skip
        self.operations[zone, name] = operation
        return operation

    def finish(self, operation: dict[str, Any], wrong: tuple[str, str, str] | None = None) -> int:
        """Mark an operation done and return when (Unix milliseconds)."""
        now = now_ms()
        operation |= {"status": "DONE", "progress": 100, "endTime": stamp(now)}
        if wrong:
            code, message, zones = wrong
            error: dict[str, Any] = {"code": code, "message": message}
            if zones:
                info = {"reason": "resource_availability", "metadatas": {"zonesAvailable": zones}}
                error["errorDetails"] = [{"errorInfo": info}]
            status, text = (403, "FORBIDDEN") if "QUOTA" in code else (503, "SERVICE UNAVAILABLE")
            operation |= {
                "error": {"errors": [error]},
                "httpErrorStatusCode": status,
                "httpErrorMessage": text,
            }
        with self.wake:
            self.wake.notify_all()
        return now

    def _at_once(self, operation: dict[str, Any]) -> dict[str, Any]:
        self.finish(operation)
        return operation

    def vm(self, zone: str, name: str) -> Vm:
        if (zone, name) not in self.vms:
            where = f"zones/{zone}/instances/{name}"
            raise Rejected(404, "notFound", f"The resource '{where}' was not found")
        return self.vms[zone, name]

    def serial(self, vm: Vm) -> bytes:
        file = vm.disk.parent / f"{vm.disk.name}.serial"
        return file.read_bytes() if file.exists() else b""

    def _described(self, project: str, zone: str, body: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.base}/compute/v1/projects/{project}/zones/{zone}"
        body["metadata"] = {**body.get("metadata", {}), "fingerprint": self._id()}
        ip = {"networkIP": f"10.0.0.{next(self.count) % 250 + 2}"}
        return {
            **body,
            "kind": "compute#instance", "id": self._id(), "status": "PROVISIONING",
            "zone": place, "selfLink": f"{place}/instances/{body['name']}",
            "creationTimestamp": stamp(now_ms()), "labelFingerprint": self._id(),
            "labels": body.get("labels", {}),
            "networkInterfaces": [{**body.get("networkInterfaces", [{}])[0], **ip}],
        }  # fmt: skip

    def _id(self) -> str:
        return str(next(self.ids))


def gpus_of(vm: Vm, metric: str) -> int:
    """Return how much of a quota a machine uses."""
    _, _, gpu, count = MACHINE_TYPES[vm.resource["machineType"].rpartition("/")[2]]
    own = f"{'PREEMPTIBLE_' if vm.is_spot else ''}{(gpu or 'no').upper().replace('-', '_')}_GPUS"
    return count if metric in (own, "GPUS_ALL_REGIONS") else 0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def stamp(ms: int) -> str:
    """Return a point in time as the API writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
