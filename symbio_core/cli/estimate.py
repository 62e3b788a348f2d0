"""`symbio estimate`: hours and dollars before the start, and what they are based on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from symbio_core.cli.app import app, out
from symbio_core.cli.commands import _assignment, _from_toml
from symbio_core.config import changed
from symbio_core.console import duration
from symbio_core.profiles import PROFILES, profile


@app.command()
def estimate(
    profile_name: Annotated[
        str, typer.Option("--profile", help=f"Preset to start from: {', '.join(PROFILES)}.")
    ] = "l4",
    budget: Annotated[int | None, typer.Option(help="Optimiser steps, search included.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. compute.gce.spot=false"),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file with settings, applied before --set.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0.01, help="Say where this many dollars are enough.")
    ] = None,
    tokens_per_s: Annotated[
        float | None, typer.Option("--tokens-per-s", min=1.0, help="A speed you know.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="An earlier run whose measured speed to go by; else the newest on such a machine."
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Where earlier runs are kept, which tell the speed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures alone, as JSON.")] = False,
) -> None:
    """Say how many hours and dollars a run would take on Google Cloud; nothing is started."""
    from symbio_core.runner.estimating import estimate_run

    changes: dict[str, Any] = _from_toml(config_file) if config_file is not None else {}
    named = {"budget.steps": budget, "budget.max_usd": max_cost, "storage.root": storage}
    changes |= {key: value for key, value in named.items() if value is not None}
    changes |= dict(_assignment(text) for text in settings or [])
    config = changed(profile(profile_name), changes)
    found = estimate_run(config, tokens_per_s=tokens_per_s, like=like)
    if as_json:
        out.print_json(found.model_dump_json())
        return
    out.print(
        f"{found.steps:,} steps, {found.tokens / 1e6:,.0f} M tokens on {found.machine}: "
        f"{duration(3600 * found.work_hours)} at {found.speed.tokens_per_s:,.0f} tokens/s"
    )
    out.print(_table(found))
    out.print(f"speed: {found.speed.based_on}", markup=False, soft_wrap=True)
    for note in found.notes:
        out.print(f"assumed: {note}", markup=False, soft_wrap=True)


def _table(found: Any) -> Table:
    table = Table("region", "price", "machine time", "cost", box=None)
    for place in found.places:
        kind = "spot" if place.spot else "full price"
        if place.usd is None:
            table.add_row(place.region, kind, duration(3600 * place.hours), place.trouble)
            continue
        over = found.cap_usd is not None and place.usd > found.cap_usd
        cost = f"${place.usd:.2f}" + (f", over ${found.cap_usd:.2f}" if over else "")
        table.add_row(place.region, place.price.note, duration(3600 * place.hours), cost)
    return table
