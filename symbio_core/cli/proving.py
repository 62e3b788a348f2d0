"""`symbio verify-resume`: see on your own machine and corpus that a killed run loses nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from symbio_core.cli.app import app, err, out
from symbio_core.cli.commands import wanted
from symbio_core.profiles import PROFILES


@app.command("verify-resume")
def verify_resume(
    corpus: Annotated[
        str | None,
        typer.Option(help="`shakespeare`, a UTF-8 text file, a folder of them, or gs://…"),
    ] = None,
    profile_name: Annotated[
        str, typer.Option("--profile", help=f"Preset to start from: {', '.join(PROFILES)}.")
    ] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file with settings, applied before --set.")
    ] = None,
    kills: Annotated[int, typer.Option(min=1, max=10_000, help="How often it is killed.")] = 5,
) -> None:
    """Kill a short run of your settings again and again; see that it ends with the same bits."""
    from symbio_core.runner import killing

    config = wanted(profile_name, corpus, settings, config_file)
    with tempfile.TemporaryDirectory() as folder:
        short = killing.shortened(config, folder)
        out.print(
            f"A run of {short.budget.steps} steps is lived undisturbed, then again until it has "
            f"been killed {killing.times(kills)}.",
            soft_wrap=True,
        )
        proof = killing.prove(
            short, kills, lambda line: out.print(line, markup=False, soft_wrap=True)
        )
    table = Table("kills", "in the midst of a write", "tensors compared", "same bits", box=None)
    is_same = "no" if proof.differs else "yes"
    table.add_row(str(proof.kills), str(proof.torn), str(proof.tensors), is_same)
    out.print(table)
    told = killing.sentence(proof, short)
    for line in proof.differs:
        err.print(line, markup=False, soft_wrap=True)
    out.print(told, markup=False, soft_wrap=True)
    if proof.diverges or (proof.differs and not killing.rounds_anew(short)):
        raise typer.Exit(1)
