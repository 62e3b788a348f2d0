"""What the project's label owns and nobody needs any more: found, and removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.instance import machine_of
from symbio_core.compute.machines import (
    LABEL,
    RUN_LABEL,
    Disk,
    KeptSecret,
    Machine,
    label_value,
)
from symbio_core.compute.secret_manager import delete_secret, list_secrets
from symbio_core.errors import CloudRefused
from symbio_core.records import Record

ROOT_KEY = "symbio-root"
"""Metadata by which a machine knows the storage root that it works for."""
GRACE_S = 900.0
"""Nothing younger is called an orphan: its run may not have taken its lease yet (s)."""


class Orphan(Record):
    """Something that costs money, or should not lie about, and that nobody needs."""

    kind: Literal["machine", "disk", "secret"]
    name: str
    zone: str
    """Where it lies; empty for a secret, which lies in the project."""
    run: str
    """Label of the run that it belonged to."""
    age_s: float
    why: str


class Foreign(Record):
    """A machine of symbio that belongs to runs of another storage root."""

    machine: Machine
    root: str
    """That storage root; empty where the machine does not say."""


class Swept(Record):
    """What became of an orphan."""

    orphan: Orphan
    removed: bool
    trouble: str = ""


def orphans(
    machines: Sequence[Machine],
    disks: Sequence[Disk],
    secrets: Sequence[KeptSecret] = (),
    *,
    live_runs: Collection[str] | None,
    now: float,
    longest_s: float,
    grace_s: float = GRACE_S,
) -> tuple[Orphan, ...]:
    """Choose what nobody needs: the third layer against machines that outlive their run.

    Args:
        machines: all that carry the project's label.
        disks: likewise.
        secrets: likewise.
        live_runs: runs whose lease is held; None if that cannot be known, and then only what is
            too old, or a disk without a machine, counts.
        now: the time (Unix seconds).
        longest_s: the cap on a machine's life; one that is older should have been ended (s).
        grace_s: nothing younger is chosen (s).
    """
    live = None if live_runs is None else {label_value(run) for run in live_runs}
    found = []
    for machine in machines:
        age_s = _age(machine.created, now)
        if age_s < grace_s or machine.status == "STOPPING":
            continue
        why = _why(machine, live, age_s, longest_s)
        if why:
            found.append(_orphan("machine", machine, age_s, why))
    for disk in disks:
        age_s = _age(disk.created, now)
        if age_s >= grace_s and not disk.is_used:
            found.append(_orphan("disk", disk, age_s, "no machine uses it"))
    for secret in secrets:
        age_s = _age(secret.created, now)
        run = secret.labels.get(RUN_LABEL, "")
        if live is not None and run not in live and age_s >= grace_s:
            short, why = secret.name.rpartition("/")[2], "no live run needs it"
            found.append(Orphan(kind="secret", name=short, zone="", run=run, age_s=age_s, why=why))
    return tuple(found)


def sweep(provisioner: Provisioner, found: Sequence[Orphan]) -> tuple[Swept, ...]:
    """Remove orphans; one that resists does not keep the others."""
    return tuple(_swept(provisioner, orphan) for orphan in found)


def find_orphans(
    provisioner: Provisioner,
    *,
    live_runs: Collection[str] | None,
    clock: Callable[[], float],
    grace_s: float = GRACE_S,
) -> tuple[Orphan, ...]:
    """Return what the project's label owns and nobody needs; see `orphans`."""
    return orphans(
        provisioner.list_owned(),
        provisioner.list_disks(),
        list_secrets(provisioner),
        live_runs=live_runs,
        now=clock(),
        longest_s=provisioner.settings.max_run_hours * 3600.0,
        grace_s=grace_s,
    )


def find_foreign(provisioner: Provisioner) -> tuple[Foreign, ...]:
    """Return the project's machines that carry symbio's label with another owner, oldest first."""
    found = [
        Foreign(machine=machine_of(instance), root=_root_of(instance))
        for page in provisioner.pages("Instances", "aggregated_list", filter=f"labels.{LABEL}:*")
        for scoped in page.items.values()
        for instance in scoped.instances
        if instance.labels.get(LABEL, "") not in ("", provisioner.settings.label)
    ]
    return tuple(sorted(found, key=lambda one: (one.machine.created or 0.0, one.machine.name)))


def _root_of(instance: Any) -> str:
    told = {item.key: item.value for item in instance.metadata.items}
    return str(told.get(ROOT_KEY, ""))


def _swept(provisioner: Provisioner, orphan: Orphan) -> Swept:
    try:
        if orphan.kind == "machine":
            provisioner.delete_by_name(orphan.zone, orphan.name)
        elif orphan.kind == "disk":
            provisioner.delete_disk(orphan.zone, orphan.name)
        else:
            delete_secret(provisioner, orphan.name)
    except CloudRefused as error:
        return Swept(orphan=orphan, removed=False, trouble=str(error))
    return Swept(orphan=orphan, removed=True)


def _why(machine: Machine, live: set[str] | None, age_s: float, longest_s: float) -> str:
    if live is not None and machine.run not in live:
        return "no live run holds it"
    if machine.is_alive and age_s > longest_s + GRACE_S:
        return f"older than the cap of {longest_s / 3600:g} h"
    return ""


def _orphan(
    kind: Literal["machine", "disk"], one: Machine | Disk, age_s: float, why: str
) -> Orphan:
    run = one.labels.get(RUN_LABEL, "")
    return Orphan(kind=kind, name=one.name, zone=one.zone, run=run, age_s=age_s, why=why)


def _age(created: float | None, now: float) -> float:
    # What does not say when it was made is as old as can be.
    return now - created if created is not None else float("inf")
