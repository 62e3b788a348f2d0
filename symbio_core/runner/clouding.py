"""What a person asks of the cloud by hand: a machine up or down, who runs, what is wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from symbio_core.compute.doctor import Check, examine
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.ledger import Ledger
from symbio_core.compute.machines import Machine, label_value, owned_by
from symbio_core.compute.sweep import (
    GRACE_S,
    Foreign,
    Orphan,
    Swept,
    find_foreign,
    find_orphans,
    sweep,
)
from symbio_core.config import RunConfig
from symbio_core.errors import ConfigError, PriceCapReached, SymbioError, UnknownRun
from symbio_core.runner.accounts import read_ledger
from symbio_core.runner.inspecting import resume_command
from symbio_core.runner.machines import RunMachine, passed_on
from symbio_core.runner.opening import reopen
from symbio_core.storage import list_runs, open_store
from symbio_core.storage.lease import Lease, lease_of

__all__ = ["Check", "Foreign", "Ledger", "Machine", "Orphan", "Swept"]
PROBE_BYTES = 1


@contextmanager
def machine_of(
    root: str, run_id: str, api_url: str, say: Callable[[str], None]
) -> Iterator[RunMachine]:
    """Keep a run's machine while the body launches or removes it by hand.

    Raises:
        LeaseHeld: a parent keeps it, and would launch again what is removed.
    """
    run = reopen(root, run_id)
    store = run.store.store
    lease = Lease.take(store, run_id, ttl_s=run.config.storage.lease_s)
    try:
        yield RunMachine(run_id, run.config, store, api_url=api_url, say=say)
    finally:
        lease.release()


def bring_up(root: str, run_id: str, api_url: str, say: Callable[[str], None]) -> Machine:
    """Return the machine of a run, running: the one it has, or one that is launched.

    Raises:
        PriceCapReached: the cap leaves no money for one; the message says how to raise it.
    """
    try:
        with machine_of(root, run_id, api_url, say) as keeper:
            return keeper.up()
    except PriceCapReached as cap:
        command = resume_command(reopen(root, run_id))
        raise PriceCapReached(f"{cap}; go on with: {command} --max-cost MORE") from cap


def machines(config: RunConfig) -> tuple[Machine, ...]:
    """Return all machines of the runs in this storage, oldest first."""
    return _provisioner(config).list_owned()


def foreign(config: RunConfig) -> tuple[Foreign, ...]:
    """Return machines of other storage roots in the same project, oldest first; all are let be."""
    return find_foreign(_provisioner(config))


def find_machine(config: RunConfig, run_id: str) -> Machine:
    """Return the machine of a run.

    Raises:
        UnknownRun: it has none.
    """
    found = _provisioner(config).find(run_id)
    if not found:
        raise UnknownRun(f"run '{run_id}' has no machine now; `symbio cloud status` lists those up")
    return found[-1]


def ledger_of(root: str, run_id: str) -> Ledger:
    """Return what the machines of a run have cost, settled unless a parent does so."""
    run = reopen(root, run_id)
    store = run.store.store
    lease = lease_of(store, run_id)
    if lease is not None and lease.expires > datetime.now(UTC):
        return read_ledger(store, run_id)
    return RunMachine(run_id, run.config, store, api_url="").settle()


def read_serial(config: RunConfig, machine: Machine, start: int) -> tuple[str, int]:
    """Return what a machine wrote to its serial port from ``start`` on, and where to go on."""
    return _provisioner(config).serial(machine, start)


def ssh_command(config: RunConfig, machine: Machine) -> list[str]:
    """Return the words that open a shell on a machine: by IAP, unless it has a public address."""
    gce = config.compute.gce
    words = ["gcloud", "compute", "ssh", machine.name]
    words += ["--project", str(gce.project), "--zone", machine.zone]
    return words if gce.access.external_ip else [*words, "--tunnel-through-iap"]


def doctor(config: RunConfig) -> tuple[Check, ...]:
    """Check all that a run on a cloud machine needs, and change nothing that lasts."""
    root = config.storage.root

    def try_bucket() -> str:
        store = open_store(root)
        store.check_writable(PROBE_BYTES)
        return f"{root} can be written, read and listed ({len(list_runs(store))} runs)"

    secrets = passed_on(config, os.environ)
    provisioner = _provisioner(config)
    return examine(provisioner, bucket=root, try_bucket=try_bucket, secrets=secrets)


def orphans(config: RunConfig) -> tuple[Orphan, ...]:
    """Return what runs of this storage left behind and nobody needs.

    Raises:
        ConfigError: the storage is no bucket, and machines work for runs in a bucket only.
    """
    root = config.storage.root
    if not is_bucket(root):
        raise ConfigError(
            f"storage '{root}' is a folder, and no machine in the cloud works for one; name the "
            "bucket whose runs had the machines: --storage gs://BUCKET/PREFIX"
        )
    return find_orphans(_provisioner(config), live_runs=live_runs(root), clock=time.time)


def sweep_up(config: RunConfig, found: tuple[Orphan, ...]) -> tuple[Swept, ...]:
    """Remove orphans and settle what they cost; one that resists does not keep the others."""
    swept = sweep(_provisioner(config), found)
    root = config.storage.root
    gone = {one.orphan.run for one in swept if one.removed and one.orphan.kind == "machine"}
    for name in list_runs(open_store(root)) if gone else ():
        if label_value(name) in gone:
            with suppress(SymbioError):  # The machine is gone, whatever is wrong with the run.
                ledger_of(root, name)
    return swept


def is_bucket(root: str) -> bool:
    """Say whether a storage root is one that machines in the cloud can work for."""
    return root.startswith("gs://")


def live_runs(root: str) -> list[str]:
    """Return the runs that a parent holds, or did until just now."""
    store, just_now = open_store(root), datetime.now(UTC) - timedelta(seconds=GRACE_S)
    leases = {name: lease_of(store, name) for name in list_runs(store)}
    return [name for name, lease in leases.items() if lease and lease.expires > just_now]


def _provisioner(config: RunConfig) -> Provisioner:
    return Provisioner(owned_by(config.storage.root, config.compute.gce))


def prefect_address() -> str:
    """Return the address of the Prefect server that `symbio up` started here, or nothing."""
    import tomllib

    file = Path(".symbio/prefect/profiles.toml")
    try:
        profiles = tomllib.loads(file.read_text(encoding="utf-8"))
        return str(profiles["profiles"]["symbio"]["PREFECT_API_URL"])
    except (OSError, KeyError, ValueError):
        return ""
