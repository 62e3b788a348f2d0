"""One tiny corpus, one tiny configuration. Fixtures are facts, not machinery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from symbio_core.config import RunConfig, changed
from symbio_core.profiles import smoke
from symbio_core.streams import generator
from tests.loopback import guard

guard.keep_to_loopback()

settings.register_profile("symbio", settings.default, deadline=None)
settings.load_profile("symbio")
"""A busy machine fails no property; in CI hypothesis draws the same examples every time."""

TEXT = (
    "the river moon walks over old stone and sings to a small bird while rain falls on green "
    "hills where nobody sleeps but every child remembers how winter came with silver light"
)
WORDS = TEXT.split()


SAID = "said"
"""Property of a test whose value is shown after all tests, as `record_property` takes it: seeds."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what passing tests say of themselves, also from other processes."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == SAID and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")


LONGEST_FIRST = ("faults", "flows", "cloud", "deployments", "runner", "benches")
"""Rooms whose tests live whole runs, start servers, kill processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, so that at the end no process waits for one of them."""
    items.sort(key=lambda item: _rank(item.path.parent.name))


def _rank(room: str) -> int:
    return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny text in a file."""
    path = tmp_path_factory.mktemp("corpus") / "tiny.txt"
    path.write_text(tiny_text(), encoding="utf-8")
    return path


def tiny_text() -> str:
    """Return plain text of short sentences with some order in it: words follow by rule."""
    rng = generator(7, "tiny corpus")
    paragraphs = []
    for _ in range(420):
        sentences = []
        for _ in range(int(rng.integers(3, 7))):
            at = int(rng.integers(len(WORDS)))
            words = []
            for _ in range(int(rng.integers(5, 12))):
                words.append(WORDS[at])
                at = (at * 3 + int(rng.integers(4))) % len(WORDS)
            sentences.append(" ".join(words).capitalize() + ".")
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


@pytest.fixture
def tiny_config(tiny_corpus: Path, tmp_path: Path) -> RunConfig:
    """The smoke profile on the tiny corpus, kept in a folder of the test."""
    return tiny(tiny_corpus, tmp_path / "storage")


def tiny(corpus: Path, root: Path) -> RunConfig:
    """Return the smallest configuration that lives a whole life."""
    return changed(
        smoke(),
        {
            "data.corpus": str(corpus),
            "data.vocab_size": 300,
            "data.max_bytes": None,
            "gates.n_prompts": 4,
            "gates.eval_batches": 8,
            "confirm.eval_batches": 8,
            "search.eval_batches": 4,
            "storage.root": str(root),
        },
    )
