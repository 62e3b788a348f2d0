"""What all benches share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symbio_core.benches import arms
from symbio_core.config import changed
from symbio_core.profiles import smoke

FIGURES = sorted((Path(__file__).parents[2] / "docs").glob("*.json"))


def strings(value: Any) -> Iterator[str]:
    """All text within plain data."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize(
    ("corpus", "told"), [("/home/me/notes.txt", "notes.txt"), ("gs://b/notes.txt",) * 2]
)
def test_figures_tell_the_settings_but_no_folder_of_the_machine(corpus: str, told: str) -> None:
    config = changed(smoke(), {"storage.root": "/home/me/runs", "data.corpus": corpus})
    settings = arms.heading("any", config, 1)["config"]
    assert settings["data"]["corpus"] == told
    assert settings["seed"] == config.seed
    assert "root" not in settings["storage"]


@pytest.mark.parametrize("file", FIGURES, ids=lambda file: file.stem)
def test_committed_figures_name_no_folder(file: Path) -> None:
    assert not [text for text in strings(json.loads(file.read_text())) if text.startswith("/")]
