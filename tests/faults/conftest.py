"""A finished run to damage, lived once."""

from __future__ import annotations

from pathlib import Path

import pytest

from symbio_core import runner
from tests.conftest import tiny


@pytest.fixture(scope="session")
def whole(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage root of a finished run called `one`."""
    root = tmp_path_factory.mktemp("whole")
    runner.live(runner.open_run(tiny(tiny_corpus, root), "one"))
    return root
