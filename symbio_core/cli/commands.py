"""`symbio …`: read the command line, call the runner, say in one line what went wrong."""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table

from symbio_core import __version__
from symbio_core.cli.app import RunName, Storage, app, err, out
from symbio_core.config import RunConfig, changed, describe
from symbio_core.console import Watcher, duration
from symbio_core.errors import BadInput, ConfigError, Interrupted, SymbioError
from symbio_core.profiles import PROFILES, profile
from symbio_core.progress import clear_stop, request_stop, stop_requested


@app.command()
def run(
    corpus: Annotated[
        str | None,
        typer.Option(help="`shakespeare`, a UTF-8 text file, a folder of them, or gs://…"),
    ] = None,
    profile_name: Annotated[
        str, typer.Option("--profile", help=f"Preset to start from: {', '.join(PROFILES)}.")
    ] = "demo",
    budget: Annotated[
        int | None, typer.Option(help="Hard cap on optimiser steps, search included.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random grows from it.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. search.mutation=0.6."),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file with settings, applied before --set.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Name of the run; made up if left out.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Go on from the best model of this run, or of `latest`.")
    ] = None,
    without: Annotated[
        str | None, typer.Option(help="Mechanisms to switch off, e.g. fusion,diversity.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0.01, help="End well before cloud machines cost this ($).")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Folder that holds all runs, or gs://bucket/prefix.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Without Prefect, even where it is installed.")
    ] = False,
) -> None:
    """Train, evolve, judge and report: the whole life of a model."""
    changes: dict[str, Any] = {}
    if config_file is not None:
        changes |= _from_toml(config_file)
    named = {
        "data.corpus": corpus,
        "budget.steps": budget,
        "budget.max_usd": max_cost,
        "seed": seed,
        "start_from": start_from,
        "storage.root": storage,
        "without": _names(without),
    }
    changes |= {key: value for key, value in named.items() if value is not None}
    changes |= dict(_assignment(text) for text in settings or [])
    config = changed(profile(profile_name), changes)
    _live(config, run_id, plain=plain)


@app.command()
def resume(
    run_name: RunName,
    storage: Storage = "storage",
    plain: Annotated[bool, typer.Option()] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also from a process that still holds the run.")
    ] = False,
    max_cost: Annotated[
        float | None, typer.Option(min=0.01, help="From now on end well before this cost ($).")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="From now on: budget.max_usd, compute.gce.* …"
        ),
    ] = None,
) -> None:
    """Go on with a run that was interrupted, from its last checkpoint."""
    from symbio_core import runner

    changes: dict[str, Any] = {} if max_cost is None else {"budget.max_usd": max_cost}
    changes |= dict(_assignment(text) for text in settings or [])
    # Held before anything is started, so that a second one is refused at once.
    held = runner.reopen(storage, run_name)
    for line in runner.damage(held):
        err.print(line, markup=False, soft_wrap=True)
    held.claim(take_over=take_over)
    try:
        held.change(changes)
        _live(held.config, run_name, plain=plain, root=storage)
    finally:
        held.release()


@app.command()
def status(
    run_name: Annotated[str | None, typer.Argument(help="A run; the newest if left out.")] = None,
    storage: Storage = "storage",
) -> None:
    """Show where a run stands and what was decided so far."""
    from symbio_core import runner

    opened = runner.reopen(storage, run_name or runner.newest(storage))
    out.print(_status_table(opened))
    for line in (*runner.damage(opened), *runner.summary(opened)):
        out.print(line, markup=False, soft_wrap=True)


@app.command()
def runs(storage: Storage = "storage") -> None:
    """List all runs."""
    from symbio_core import runner

    table = Table("run", "profile", "steps", "stands at", "best bits/byte", box=None)
    for name in runner.names(storage):
        try:
            opened = runner.reopen(storage, name)
        except SymbioError as error:
            # One that cannot be read hides no other.
            err.print(str(error), markup=False, soft_wrap=True)
            table.add_row(name, "–", "–", "cannot be read", "–")
            continue
        state = opened.state
        best = f"{state.best.val_bpb:.4f}" if state.best else "–"
        steps = f"{state.steps_spent}/{opened.config.budget.steps}"
        table.add_row(name, opened.config.profile, steps, runner.stands_at(opened), best)
    if not table.rows:
        out.print(runner.no_runs(storage), markup=False, soft_wrap=True)
        return
    out.print(table)


@app.command()
def report(run_name: RunName, storage: Storage = "storage") -> None:
    """Write the report of a run anew, also of one that is not finished, and say where it is."""
    from symbio_core import runner

    written = runner.reopen(storage, run_name).report()
    _show_result(written.verdict, runner.report_path(storage, run_name))


@app.command()
def sample(
    run_name: RunName,
    prompt: Annotated[str, typer.Option(help="What the model goes on from.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, max=5.0, help="0 is the likeliest.")] = 0.7,
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Longest answer (tokens).")] = 120,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="Answers.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed, another answer.")] = 1,
    storage: Storage = "storage",
) -> None:
    """Let the trained model write."""
    from symbio_core import runner

    texts = runner.sample(
        storage, run_name, prompt, temperature=temperature, tokens=tokens, count=count, seed=seed
    )
    for text in texts:
        out.print(text, markup=False, soft_wrap=True)
        if count > 1:
            out.rule()


@app.command()
def evaluate(run_name: RunName, storage: Storage = "storage") -> None:
    """Measure the trained model on the validation and confirm splits, and let it write."""
    from symbio_core import runner

    table = Table("measure", "value", "95% interval", box=None)
    for row in runner.evaluate(storage, run_name):
        table.add_row(
            row.name, f"{row.value.value:.4f}", f"{row.value.low:.4f} to {row.value.high:.4f}"
        )
    out.print(table)


@app.command()
def config(
    profile_name: Annotated[
        str, typer.Option("--profile", help=f"One of {', '.join(PROFILES)}.")
    ] = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="The values alone, as JSON.")] = False,
) -> None:
    """Print every setting of a profile, with its bounds and what it means."""
    chosen = profile(profile_name)
    if as_json:
        out.print_json(chosen.model_dump_json())
        return
    table = Table("setting", "value", "bounds", "meaning", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for row in describe(chosen):
        table.add_row(row.key, row.value, row.bounds, row.help)
    out.print(table)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which; without one, a list.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions.")] = 3,
    profile_name: Annotated[str, typer.Option("--profile", help="What is measured.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Arms at once, one CPU thread each when more than one.")
    ] = 1,
    kills: Annotated[
        int | None, typer.Option(min=1, help="Repetitions of the soak, which are kills.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here.")
    ] = None,
    storage: Storage = "storage/benches",
) -> None:
    """Measure symbio itself; each bench prints a table with intervals."""
    from symbio_core import benches

    if not name:
        known = Table.grid(padding=(0, 2))
        for key, what in benches.catalogue().items():
            known.add_row(key, what)
        out.print(known)
        return
    changes = dict(_assignment(text) for text in settings or []) | {"storage.root": storage}
    found = benches.run(
        name,
        changed(profile(profile_name), changes),
        seeds=kills or seeds,
        jobs=jobs,
        say=out.print,
    )
    out.print(found.table)
    if json_file is not None:
        json_file.write_text(json.dumps(found.data, indent=2) + "\n", encoding="utf-8")
        out.print(f"figures written to {json_file}")


@app.command("null-search")
def null_search(
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
    without: Annotated[
        str | None, typer.Option(help="Mechanisms to switch off, e.g. fusion,diversity.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Searches.")] = 20,
    jobs: Annotated[
        int, typer.Option(min=1, help="Searches at once, one CPU thread each when more than one.")
    ] = 1,
    storage: Storage = "storage/benches",
) -> None:
    """Ask how often your settings claim a winner where scores are dealt out at random."""
    from symbio_core import benches

    changes: dict[str, Any] = _from_toml(config_file) if config_file is not None else {}
    named = {"data.corpus": corpus, "storage.root": storage, "without": _names(without)}
    changes |= {key: value for key, value in named.items() if value is not None}
    changes |= dict(_assignment(text) for text in settings or [])
    found = benches.run(
        "null-search",
        changed(profile(profile_name), changes),
        seeds=seeds,
        jobs=jobs,
        say=lambda line: out.print(line, markup=False, soft_wrap=True),
    )
    out.print(found.data["sentence"], markup=False, soft_wrap=True)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of Prefect's server.")] = 4200,
) -> None:
    """Start Prefect's server, its UI and a worker, and register the deployments."""
    if importlib.util.find_spec("deployments") is None:
        raise ConfigError(
            "the deployments are not here; run `symbio up` in the folder of the checkout "
            "that holds prefect.yaml"
        )
    raise typer.Exit(subprocess.call([sys.executable, "-m", "deployments.up", "--port", str(port)]))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Take the options that stand before any command."""
    if version:
        out.print(f"symbio {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line; end with 0, 1 (failed), 2 (bad input) or 130 (interrupted)."""
    # The flows are an application run from its folder, which a console script does not look in.
    sys.path.insert(0, str(Path.cwd()))
    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False)
    except SymbioError as error:
        err.print(f"symbio: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("symbio: interrupted")
        sys.exit(130)
    except Exception as error:
        # Usage errors of the command line know how to show themselves.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 1))
    sys.exit(code if isinstance(code, int) else 0)


def _live(config: RunConfig, run_id: str | None, *, plain: bool, root: str | None = None) -> None:
    """Live a run to its end, on Prefect where it is installed, and show how it goes."""
    from symbio_core import runner

    name = run_id or runner.new_name(config)
    where = root or config.storage.root
    there = "" if where == "storage" else f" --storage {where}"
    out.print(f"run {name}  (profile {config.profile}, seed {config.seed})", markup=False)
    if run_id in runner.names(where):
        out.print("it exists: going on where it stands, under its own settings")
    clear_stop()
    previous = signal.signal(signal.SIGINT, _stop_softly)
    signal.signal(signal.SIGTERM, _stop_softly)
    try:
        with Watcher(out):
            if plain or not _has_application():
                finished = runner.live(runner.begin(config, name))
            else:
                embedded = importlib.import_module("deployments.embedded")
                finished = embedded.run_embedded(config, name)
    except Interrupted as error:
        raise Interrupted(
            f"stopped; all is saved. Go on with: symbio resume {name}{there}"
        ) from error
    finally:
        signal.signal(signal.SIGINT, previous)
    out.print(f"done in {duration(finished.totals.seconds)}")
    _show_result(finished.verdict, runner.report_path(where, name))
    out.print(f'talk    symbio sample {name}{there} --prompt "…"', markup=False)


def _stop_softly(_signal: int, _frame: FrameType | None) -> None:
    if stop_requested():
        raise KeyboardInterrupt
    request_stop()
    err.print("stopping at the next step and saving; once more to stop at once")


def _has_application() -> bool:
    return all(importlib.util.find_spec(name) for name in ("prefect", "flows", "deployments"))


def _show_result(verdict: str, where: str) -> None:
    out.print(f"report  {where}", markup=False, soft_wrap=True)
    out.print(f"verdict {verdict}", markup=False, soft_wrap=True)


def _names(listed: str | None) -> list[str] | None:
    return [name.strip() for name in listed.split(",")] if listed else None


def wanted(
    profile_name: str,
    corpus: str | None,
    settings: list[str] | None,
    config_file: Path | None,
) -> RunConfig:
    """Return a preset with the changes of a command line: the file first, then its own options.

    Raises:
        BadInput: the file cannot be read, or a setting will not do.
    """
    changes: dict[str, Any] = _from_toml(config_file) if config_file is not None else {}
    changes |= {"data.corpus": corpus} if corpus is not None else {}
    changes |= dict(_assignment(text) for text in settings or [])
    return changed(profile(profile_name), changes)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set wants KEY=VALUE, got '{text}'; for example search.mutation=0.6")
    try:
        return key.strip(), json.loads(raw)
    except json.JSONDecodeError:
        return key.strip(), raw


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror}; give the path of a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return _flat(content)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _status_table(opened: Any) -> Table:
    table = Table(
        "phase", "try", "steps", "val bits/byte", "quality", "function", "decision", box=None
    )
    for attempt in opened.attempts:
        outcome = attempt.outcome
        quality = attempt.battery.quality
        table.add_row(
            outcome.phase,
            str(outcome.attempt),
            str(outcome.steps),
            f"{outcome.end.val_bpb:.4f}",
            f"{quality.value:.2f} ({quality.low:.2f} to {quality.high:.2f})",
            outcome.end.formula,
            attempt.decision.kind,
        )
    return table
