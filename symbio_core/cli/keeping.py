"""Commands that look after what runs have left in their storage."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from symbio_core.cli.app import RunName, Storage, app, err, out


@app.command()
def fsck(
    run_name: RunName,
    storage: Storage = "storage",
    repair: Annotated[
        bool, typer.Option("--repair", help="Make anew what can be made from the rest.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list the files that are whole.")
    ] = False,
) -> None:
    """Check every file of a run against its hash; list blobs, references and damage."""
    from symbio_core import runner

    if repair:
        for line in runner.repair(storage, run_name):
            out.print(line, markup=False, soft_wrap=True)
    found = runner.examine(storage, run_name, deep=True)
    table = Table("file", "bytes", "is", "needed by", box=None)
    for file in found.files:
        if everything or file.name.startswith("checkpoints/") or file.health != "whole":
            table.add_row(file.name, f"{file.size:,}", file.health, ", ".join(file.used_by))
    out.print(table)
    counts = dict.fromkeys(("whole", "damaged", "missing", "unreferenced", "foreign"), 0)
    for file in found.files:
        counts[file.health] += 1
    size = sum(file.size for file in found.files)
    out.print(f"{size:,} bytes in {len(found.files)} files: " + ", ".join(_told(counts)))
    for file in found.wrong:
        err.print(f"damaged: {file.why}; {file.remedy}", markup=False, soft_wrap=True)
    if found.wrong:
        raise typer.Exit(1)


def _told(counts: dict[str, int]) -> list[str]:
    return [f"{count} {health}" for health, count in counts.items() if count]
