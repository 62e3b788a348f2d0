"""Nothing that is read can run code: no unpickling anywhere in the house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
STOREYS = ("symbio_core", "tasks", "flows", "deployments")
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "jsonpickle", "code", "runpy", "imp",
}  # fmt: skip
CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "pd.read_pickle",
    "pandas.read_pickle", "eval", "exec", "compile", "builtins.eval", "builtins.exec",
    "__import__", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all",
    "os.system", "os.popen",
}  # fmt: skip


def dangers(text: str) -> Iterator[str]:
    """Yield whatever could unpickle, or run text as code."""
    tree = ast.parse(text)
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allows = [k for k in node.keywords if k.arg in ("allow_pickle", "shell")]
            # Another library's object may be called yaml too.
            is_other = name.startswith("yaml.") and "yaml" not in imported
            if (name in CALLS and not is_other) or name.endswith((".to_pickle", ".read_pickle")):
                yield name
            elif any(ast.unparse(keyword.value) != "False" for keyword in allows):
                yield f"{name} with {allows[0].arg}"


def test_nothing_in_the_house_unpickles() -> None:
    found = {
        path.relative_to(HOUSE).as_posix(): names
        for storey in STOREYS
        for path in (HOUSE / storey).rglob("*.py")
        if (names := list(dangers(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load('x')",
        "def f():\n    import joblib", "np.load('x', allow_pickle=True)", "frame.to_pickle('x')",
        "eval('1')", "import pandas as pd\npd.read_pickle('x')", "np.load(p, allow_pickle=flag)",
        "import yaml\nyaml.load(text)", "subprocess.run(text, shell=True)", "os.system(text)",
        "__import__(name)", "compile(text, 'f', 'exec')",
    ],
)  # fmt: skip
def test_a_planted_danger_is_seen(text: str) -> None:
    assert len(list(dangers(text))) == 1


def test_lawful_reading_is_let_through() -> None:
    lawful = "import json\nnp.load('x', allow_pickle=False)\nmodel.eval()\njson.loads('1')"
    lawful += "\nre.compile('a')\nyaml.safe_load('a')\nsubprocess.run(['ls'])"
    assert list(dangers(lawful)) == []
