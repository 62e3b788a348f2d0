"""A finished run to damage, lived once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.config import RunConfig
from symbio_core.progress import Progress, subscribe
from tests.conftest import tiny


@dataclass
class Lived:
    """A finished run called `one`."""

    config: RunConfig
    most_held: int = 0
    """Most bytes that its checkpoints took at any time."""


@pytest.fixture(scope="session")
def lived(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    root = tmp_path_factory.mktemp("whole")
    found = Lived(tiny(tiny_corpus, root))

    def look(_report: Progress) -> None:
        files = root.glob("runs/one/checkpoints/**/*")
        with suppress(FileNotFoundError):  # Some is deleted while it is looked at.
            held = sum(path.stat().st_size for path in files if path.is_file())
            found.most_held = max(found.most_held, held)

    unsubscribe = subscribe(look)
    runner.live(runner.open_run(found.config, "one"))
    unsubscribe()
    return found


@pytest.fixture(scope="session")
def whole(lived: Lived) -> Path:
    """The storage root of a finished run called `one`."""
    return Path(lived.config.storage.root)
