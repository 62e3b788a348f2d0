"""`symbio cloud …`: the machines on Google Cloud, by hand."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from symbio_core.cli.app import RunName, app, out
from symbio_core.cli.commands import _assignment, _from_toml
from symbio_core.config import RunConfig, changed
from symbio_core.console import duration
from symbio_core.profiles import PROFILES, profile

cloud = typer.Typer(
    help="Machines on Google Cloud: one up or down, who runs, a shell, what is wrong.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cloud, name="cloud")

Bucket = Annotated[str, typer.Option("--storage", help="Storage root of the runs, gs://…")]
Profile = Annotated[
    str, typer.Option("--profile", help=f"Preset to start from: {', '.join(PROFILES)}.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. compute.gce.project=P."),
]
File = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
FOLLOW_S = 2.0


@cloud.command()
def up(run_name: RunName, storage: Bucket = "storage") -> None:
    """Launch the machine of a run, or find the one it has; a run does this by itself."""
    from symbio_core.runner import clouding

    machine = clouding.bring_up(storage, run_name, clouding.prefect_address(), _say)
    out.print(
        f"{machine.name} runs in {machine.zone}; it ends itself when nothing is trained on it"
    )


@cloud.command()
def status(
    run_name: Annotated[str | None, typer.Argument(help="A run; all machines if left out.")] = None,
    storage: Bucket = "storage",
    profile_name: Profile = "l4",
    settings: Set = None,
    config_file: File = None,
) -> None:
    """List the machines there are, and what a run's machines have cost."""
    from symbio_core.runner import clouding

    config = _settings(run_name, storage, profile_name, settings, config_file)
    table = Table("machine", "zone", "status", "kind", "run", "up since", box=None)
    for one in clouding.machines(config):
        kind = f"{one.machine_type} ({'spot' if one.spot else 'full price'})"
        table.add_row(one.name, one.zone, one.status, kind, one.run, _clock(one.started))
    out.print(table if table.rows else f"no machines of {config.storage.root}", markup=False)
    _show_foreign(config)
    if run_name is not None:
        _show_costs(clouding.ledger_of(storage, run_name))


@cloud.command()
def ssh(run_name: RunName, storage: Bucket = "storage") -> None:
    """Open a shell on the machine of a run; without gcloud, print the command for it."""
    from symbio_core.runner import clouding

    config = _settings(run_name, storage)
    words = clouding.ssh_command(config, clouding.find_machine(config, run_name))
    out.print(shlex.join(words), markup=False, soft_wrap=True)
    if shutil.which(words[0]):
        raise typer.Exit(subprocess.call(words))
    out.print("gcloud is not installed here; run the command where it is")


@cloud.command()
def logs(
    run_name: RunName,
    storage: Bucket = "storage",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until Ctrl-C.")] = False,
) -> None:
    """Print what the machine of a run wrote to its serial port."""
    from symbio_core.runner import clouding

    config = _settings(run_name, storage)
    machine = clouding.find_machine(config, run_name)
    text, position = clouding.read_serial(config, machine, 0)
    out.out(text, end="", highlight=False)
    while follow:
        time.sleep(FOLLOW_S)
        text, position = clouding.read_serial(config, machine, position)
        out.out(text, end="", highlight=False)


@cloud.command()
def down(run_name: RunName, storage: Bucket = "storage") -> None:
    """Delete the machine of a run; what it saved stays, and the run can be resumed."""
    from symbio_core.runner import clouding

    with clouding.machine_of(storage, run_name, clouding.prefect_address(), _say) as keeper:
        ledger = keeper.remove()
    _show_costs(ledger)


@cloud.command()
def sweep(
    storage: Bucket = "storage",
    profile_name: Profile = "l4",
    settings: Set = None,
    config_file: File = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them without asking.")] = False,
) -> None:
    """Find machines, disks and secrets of this project that nobody needs, and remove them."""
    from symbio_core.runner import clouding

    config = _settings(None, storage, profile_name, settings, config_file)
    _show_foreign(config)
    found = clouding.orphans(config)
    for one in found:
        age = duration(one.age_s)
        where = f" in {one.zone}" if one.zone else ""
        out.print(f"{one.kind} {one.name}{where}, {age} old: {one.why}", markup=False)
    if not found:
        out.print("nothing to sweep")
        return
    if not yes and not typer.confirm(f"remove {len(found)}?"):
        return
    swept = clouding.sweep_up(config, found)
    for result in swept:
        how = "removed" if result.removed else f"stays: {result.trouble}"
        out.print(f"{result.orphan.name}: {how}", markup=False, soft_wrap=True)
    if not all(result.removed for result in swept):
        raise typer.Exit(1)


@cloud.command()
def doctor(
    storage: Bucket = "storage",
    profile_name: Profile = "l4",
    settings: Set = None,
    config_file: File = None,
) -> None:
    """Check credentials, services, rights, quotas, image and bucket; say what mends each."""
    from symbio_core.runner import clouding

    checks = clouding.doctor(_settings(None, storage, profile_name, settings, config_file))
    # Folded, because a permission or an image that is cut off cannot be looked up.
    what = Column("check", max_width=30, overflow="fold")
    table = Table(what, Column("", no_wrap=True), Column("found", overflow="fold"), box=None)
    for check in checks:
        table.add_row(check.what, check.state, check.found)
    out.print(table)
    for check in checks:
        if not check.ok and check.mend:
            out.print(f"{check.what}: {check.mend}", markup=False, soft_wrap=True)
    if any(check.state == "fails" for check in checks):
        raise typer.Exit(1)


def _settings(
    run_name: str | None,
    storage: str,
    profile_name: str = "l4",
    settings: list[str] | None = None,
    config_file: Path | None = None,
) -> RunConfig:
    """Return the settings of a run, or those of a profile with changes."""
    if run_name is not None:
        from symbio_core import runner

        return runner.reopen(storage, run_name).config
    changes: dict[str, Any] = _from_toml(config_file) if config_file is not None else {}
    changes |= {"storage.root": storage} | dict(_assignment(text) for text in settings or [])
    return changed(profile(profile_name), changes)


def _show_foreign(config: RunConfig) -> None:
    from symbio_core.runner import clouding

    for one in clouding.foreign(config):
        machine = one.machine
        whose = f"for {one.root}, see --storage {one.root}" if one.root else "for another storage"
        _say(f"{machine.name} in {machine.zone} is {machine.status} {whose}")


def _show_costs(ledger: Any) -> None:
    now = time.time()
    table = Table("machine", "zone", "price", "hours", "cost", "ended by", box=None)
    for one in ledger.attempts:
        hours = f"{one.billed_s(now) / 3600:.2f}"
        kind = "spot" if one.spot else "full"
        table.add_row(one.name, one.zone, kind, hours, f"${one.usd(now):.2f}", one.why)
    if table.rows:
        out.print(table)
    out.print(f"total ${ledger.usd(now):.2f} for {duration(ledger.seconds(now))} of machines")


def _clock(seconds: float | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else "–"


def _say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)
