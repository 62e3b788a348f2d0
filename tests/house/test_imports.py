"""Who may import whom: the walls of the house as data, and a proof that the test sees a breach."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]

GROUND = {"__init__", "errors", "config", "records", "streams", "progress", "profiles"}
"""Imported by all; imports no room."""
ALLOWED: dict[str, set[str]] = {
    "activations": set(),
    "monitors": set(),
    "search": {"activations"},
    "gates": {"monitors"},
    "lifecycle": {"search"},
    "model": {"activations"},
    "training": {"activations", "model", "monitors"},
    "corpus": set(),
    "storage": set(),
    "compute": set(),
    "report": {"activations", "lifecycle"},
    "console": set(),
}
"""Room → the rooms it may import besides itself and the ground floor."""
ROOMS = set(ALLOWED)
ALLOWED |= {
    "runner": ROOMS - {"console"},
    "benches": ROOMS | {"runner"},
    "cli": {"runner", "benches", "console"},
}
PURE = {"activations", "search", "monitors", "gates", "lifecycle"}
IMPURE_MODULES = {"os", "time", "pathlib", "random", "logging", "torch"}
GOOGLE = {"symbio_core/storage/gcs.py", "symbio_core/compute/gce.py"}
"""The only files that may import Google's clients, and inside functions only."""
STOREYS = ("symbio_core", "tasks", "flows", "deployments")
"""From the ground up: each may import those below it."""


@dataclass(frozen=True)
class Import:
    """One name that a file imports, as a full dotted path."""

    target: str
    line: int
    is_lazy: bool
    """Inside a function, so that loading the file does not load it."""

    @property
    def top(self) -> str:
        return self.target.split(".")[0]

    @property
    def room(self) -> str | None:
        """The room of symbio_core that it leads to."""
        parts = self.target.split(".")
        return (parts[1] if len(parts) > 1 else "__init__") if self.top == "symbio_core" else None


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    """Yield everything that a file imports, relative imports resolved, wherever it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(root).parent.parts
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            # Only from a bare package may a name be a module of its own.
            is_bare = base == "symbio_core"
            names = [f"{base}.{alias.name}" if is_bare else base for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, id(node) in lazy)


def breaches(root: Path) -> list[str]:
    """Return every forbidden import below ``root``, as `file:line: what is wrong`."""
    found = []
    for storey in STOREYS:
        for path in sorted((root / storey).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            for one in imports_of(path, root):
                found += [f"{where}:{one.line}: {why}" for why in wrong_with(where, one)]
    return found


def wrong_with(where: str, one: Import) -> Iterator[str]:
    storey = where.split("/")[0]
    above = STOREYS[STOREYS.index(storey) + 1 :]
    if one.top in above:
        yield f"{storey} imports {one.top}, which stands above it"
    if one.top == "google" and (where not in GOOGLE or not one.is_lazy):
        yield "Google's clients are imported only in gcs.py and gce.py, inside functions"
    if storey != "symbio_core":
        return
    if one.top == "prefect":
        yield "symbio_core knows no orchestrator"
    yield from wrong_in_core(Path(where).parts[1].removesuffix(".py"), one)


def wrong_in_core(room: str, one: Import) -> Iterator[str]:
    if room not in GROUND | set(ALLOWED):
        yield f"'{room}' is not in the table of rooms; say what it may import"
        return
    if room in PURE | GROUND - {"progress"} and one.top in IMPURE_MODULES:
        yield f"{room} is pure and imports {one.top}"
    into = one.room
    if into is None or into in GROUND or into == room:
        return
    # `from symbio_core import __version__` names no room.
    if into.startswith("__"):
        return
    if into not in ALLOWED.get(room, set()):
        yield f"{room} may not import {into}"


def test_every_import_stays_within_the_walls() -> None:
    assert breaches(HOUSE) == []


def doors(root: Path) -> list[str]:
    """Return every call in the core that imports by name, which no import statement shows."""
    return [
        f"{path.relative_to(root).as_posix()}: {ast.unparse(node)}"
        for path in sorted((root / "symbio_core").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__", "run_module")
    ]


def test_the_core_has_one_door_by_name_to_the_flows() -> None:
    # `symbio run` looks for an embedded server where the application is installed beside the core.
    assert doors(HOUSE) == [
        "symbio_core/cli/commands.py: importlib.import_module('deployments.embedded')"
    ]


@pytest.mark.parametrize(
    "text", ["importlib.import_module('flows')", "__import__('prefect')", "import_module(name)"]
)
def test_a_second_door_is_seen(text: str, tmp_path: Path) -> None:
    plant(tmp_path, "symbio_core/runner/door.py", f"def f():\n    {text}")
    assert len(doors(tmp_path)) == 1


def test_the_walk_reaches_every_storey() -> None:
    for storey in STOREYS:
        files = list((HOUSE / storey).rglob("*.py"))
        assert files, f"{storey} is empty"
        assert any(list(imports_of(path, HOUSE)) for path in files)


FORBIDDEN = {
    "a pure room with torch": ("symbio_core/gates/judging.py", "import torch"),
    "a pure room with a part of torch": (
        "symbio_core/search/wide.py", "from torch.nn import functional",
    ),
    "a pure room with a clock": ("symbio_core/lifecycle/clock.py", "from time import monotonic"),
    "a pure room with files": ("symbio_core/monitors/disk.py", "import os.path"),
    "a pure room with hidden chance": ("symbio_core/activations/luck.py", "import random"),
    "the ground floor with a room": (
        "symbio_core/records.py", "from symbio_core.search import rank",
    ),
    "the ground floor with torch": ("symbio_core/config.py", "import torch"),
    "a room that reaches up": ("symbio_core/search/up.py", "from symbio_core import runner"),
    "two rooms that touch the world": (
        "symbio_core/storage/both.py", "from symbio_core.corpus import prepare",
    ),
    "lifecycle past the search": (
        "symbio_core/lifecycle/more.py", "import symbio_core.activations.tree",
    ),
    "a relative way around": ("symbio_core/gates/sly.py", "from ..training import Member"),
    "a relative way to a package": ("symbio_core/gates/shy.py", "from .. import training"),
    "a lazy way around": (
        "symbio_core/model/late.py", "def f():\n    from symbio_core.training import Member",
    ),
    "the command line past the runner": (
        "symbio_core/cli/commands.py", "from symbio_core.storage import RunStore",
    ),
    "an orchestrator in the core": ("symbio_core/runner/flow.py", "from prefect import flow"),
    "a core that knows its flows": ("symbio_core/runner/up.py", "import flows.autonomous"),
    "a task that knows its flow": ("tasks/up.py", "from flows.phases import PHASE_FLOWS"),
    "a flow that knows its deployment": ("flows/up.py", "import deployments.up"),
    "Google in the wrong place": (
        "symbio_core/report/bucket.py", "def f():\n    from google.cloud import storage",
    ),
    "Google on loading": ("symbio_core/storage/gcs.py", "from google.cloud import storage"),
    "a room without a rule": ("symbio_core/attic/box.py", "import math"),
}  # fmt: skip
LAWFUL = {
    "symbio_core/search/fine.py": "from symbio_core.activations import parse\nimport math",
    "symbio_core/lifecycle/fine.py": "from symbio_core.search.rungs import rung_plan",
    "symbio_core/gates/fine.py": "from symbio_core import monitors, records\nfrom . import ngram",
    "symbio_core/runner/fine.py": "import torch\nfrom symbio_core import lifecycle, __version__",
    "symbio_core/storage/gcs.py": "import os\ndef f():\n    from google.cloud import storage",
    "symbio_core/cli/commands.py": "def f():\n    from symbio_core import runner",
    "symbio_core/progress.py": "import threading\nfrom symbio_core.records import Record",
    "tasks/fine.py": "from prefect import task\nfrom symbio_core.runner import reopen",
    "flows/fine.py": "from tasks.life import decide\nfrom symbio_core.config import RunConfig",
    "deployments/fine.py": "from flows.autonomous import symbio",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_planted_breach_is_seen(name: str, tmp_path: Path) -> None:
    for where, text in LAWFUL.items():
        plant(tmp_path, where, text)
    assert breaches(tmp_path) == []

    where, text = FORBIDDEN[name]
    plant(tmp_path, where, text)
    found = breaches(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{where}:")


def plant(root: Path, where: str, text: str) -> None:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


PROBE = """
import importlib, importlib.util, sys
heavy = sys.argv[1].split(",")
for name in sys.argv[2:]:
    if importlib.util.find_spec(name) is None:
        continue
    importlib.import_module(name)
    loaded = [module for module in heavy if module in sys.modules]
    if loaded:
        print(name, *loaded)
        break
"""
LIGHT = ("config", "records", "errors", "streams", "progress", "profiles", *sorted(PURE), "cli")


def first_that_loads(heavy: str, *modules: str) -> str:
    command = [sys.executable, "-c", PROBE, heavy, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOUSE, check=True)
    return done.stdout.strip()


def test_a_form_or_a_server_can_load_the_light_rooms_without_torch() -> None:
    names = [f"symbio_core.{name}" for name in LIGHT]
    assert first_that_loads("torch,prefect,google.cloud,pandas", *names) == ""


def test_the_probe_sees_what_is_loaded() -> None:
    found = first_that_loads("numpy", "symbio_core.errors", "symbio_core.streams")
    assert found == "symbio_core.streams numpy"
