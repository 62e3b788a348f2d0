"""How a machine is described to the Compute API, and how its answers are read. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from symbio_core.compute.machines import LABEL, RUN_LABEL, Disk, Machine, Order, Stay, label_value
from symbio_core.config import GceSettings

SHORTEST_CAP_S = 30
"""The service takes no cap on a machine's life below this (s)."""
BEGINS = ("insert", "start")
ENDS = ("delete", "stop", "suspend", "preempted", "hostError", "guestTerminate", "terminate")
"""Types of operations after which a machine no longer runs; system ones have a prefix."""


def described(settings: GceSettings, order: Order, image: str) -> dict[str, Any]:
    """Return the instance to insert for an order.

    Args:
        settings: what kind of machine, and who it is.
        order: whose machine, where, at which price.
        image: exact image of its boot disk.
    """
    mine = {LABEL: settings.label, RUN_LABEL: label_value(order.run_id)}
    labels = {**{k: label_value(v) for k, v in order.labels.items()}, **mine}
    boot, access = settings.boot, settings.access
    zone = f"zones/{order.zone}"
    metadata = {
        "startup-script": order.startup_script,
        "enable-oslogin": "TRUE" if access.os_login else "FALSE",
        "symbio-image": image,
        **order.metadata,
    }
    return {
        "name": order.name,
        "machine_type": f"{zone}/machineTypes/{settings.machine_type}",
        "labels": labels,
        "scheduling": _scheduling(settings, order),
        "disks": [
            {
                "boot": True,
                "auto_delete": True,
                "initialize_params": {
                    "source_image": image,
                    "disk_size_gb": boot.disk_gb,
                    "disk_type": f"{zone}/diskTypes/{boot.disk_type}",
                    "labels": labels,
                },
            }
        ],
        "network_interfaces": [_network(settings, order.zone)],
        "service_accounts": [
            {"email": access.service_account or "default", "scopes": list(access.scopes)}
        ],
        "metadata": {"items": [{"key": k, "value": v} for k, v in metadata.items() if v]},
    }


def _scheduling(settings: GceSettings, order: Order) -> dict[str, Any]:
    longest = round(settings.max_run_hours * 3600)
    own = order.max_run_s if order.max_run_s is not None else longest
    rules: dict[str, Any] = {
        "provisioning_model": "SPOT" if order.spot else "STANDARD",
        "instance_termination_action": settings.at_end.upper(),
        "on_host_maintenance": "TERMINATE",
        "automatic_restart": False,
        "max_run_duration": {"seconds": max(SHORTEST_CAP_S, min(own, longest))},
    }
    if order.spot and settings.notice_s:
        rules["preemption_notice_duration"] = {"seconds": settings.notice_s}
    return rules


def _network(settings: GceSettings, zone: str) -> dict[str, Any]:
    access = settings.access
    interface: dict[str, Any] = {"network": f"global/networks/{access.network}"}
    if access.subnetwork:
        region = zone.rpartition("-")[0]
        interface["subnetwork"] = f"regions/{region}/subnetworks/{access.subnetwork}"
    if access.external_ip:
        interface["access_configs"] = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}]
    return interface


def machine_of(instance: Any) -> Machine:
    """Return a machine as the service describes it."""
    items = {item.key: item.value for item in instance.metadata.items}
    interfaces = list(instance.network_interfaces)
    return Machine(
        name=instance.name,
        zone=instance.zone.rpartition("/")[2],
        id=str(instance.id),
        status=instance.status,
        machine_type=instance.machine_type.rpartition("/")[2],
        spot=instance.scheduling.provisioning_model == "SPOT",
        labels=dict(instance.labels),
        image=items.get("symbio-image", ""),
        created=_seconds(instance.creation_timestamp),
        started=_seconds(instance.last_start_timestamp),
        stopped=_seconds(instance.last_stop_timestamp),
        max_run_s=int(instance.scheduling.max_run_duration.seconds) or None,
        attributes={key: value for key, value in items.items() if key.startswith("symbio-")},
        address=interfaces[0].network_i_p if interfaces else "",
    )


def _seconds(stamp: str) -> float | None:
    return datetime.fromisoformat(stamp).timestamp() if stamp else None


def disk_of(disk: Any) -> Disk:
    """Return a disk as the service describes it."""
    return Disk(
        name=disk.name,
        zone=disk.zone.rpartition("/")[2],
        size_gb=int(disk.size_gb),
        labels=dict(disk.labels),
        created=_seconds(disk.creation_timestamp),
        is_used=bool(disk.users),
    )


def stays_of(name: str, zone: str, operations: Iterable[Any]) -> tuple[Stay, ...]:
    """Return when a machine ran, from the operations on it in any order."""
    done = [op for op in operations if op.status.name == "DONE" and not op.error.errors]
    stays: list[Stay] = []
    began: float | None = None
    for op in sorted(done, key=lambda op: (op.end_time, op.insert_time)):
        kind, at = op.operation_type.rpartition(".")[2], _seconds(op.end_time)
        if kind in BEGINS and began is None:
            began = at
        elif kind in ENDS and began is not None:
            stays.append(Stay(name=name, zone=zone, started=began, ended=at, why=kind))
            began = None
    if began is not None:
        stays.append(Stay(name=name, zone=zone, started=began, ended=None, why="running"))
    return tuple(stays)


def hints_of(error: Any) -> tuple[str, ...]:
    """Return the zones that a stockout says have room."""
    for details in error.error_details:
        zones = details.error_info.metadatas.get("zonesAvailable", "")
        if zones:
            return tuple(zone.strip() for zone in zones.split(",") if zone.strip())
    return ()
