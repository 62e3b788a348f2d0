"""Situations that the detectors exist for, each caused in a tiny real training. One a detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symbio_core.benches.detectors.lives import TINY, Life, tried
from symbio_core.config import RunConfig, changed
from symbio_core.corpus.cutting import pack
from symbio_core.corpus.documents import load_documents
from symbio_core.lifecycle import generation_price
from symbio_core.runner.generation import Gather
from symbio_core.streams import generator

ALONE = {"without": ("search", "final")}
"""The main line alone."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A situation and the detector that has to see it."""

    detector: str
    about: str
    live: Callable[[RunConfig, Path], Life]
    """Lives up to the phase that is judged."""


def tiny(config: RunConfig, **changes: Any) -> RunConfig:
    """Return the bench's own small training under the settings' gates."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return changed(config, TINY | named)


def one_generation(life: Life, gather: Gather, *, after: int = 10) -> None:
    """Live a phase that can buy exactly one generation, then trains ``after`` steps."""
    settings = life.config.phase("cambrian")
    price = generation_price(life.config, settings, settings.population)
    life.phase("cambrian", price + after, plant=gather)


def interference(config: RunConfig, folder: Path) -> Life:
    """A child is minus its parent's function; its sibling hardly differs from the parent."""
    life = Life(tiny(config, **EARLY), folder)
    life.phase("abiogenesis", 200)
    one_generation(life, tried("-gelu(x)", "gelu(x)+0.01·x"))
    return life


def collapse(config: RunConfig, folder: Path) -> Life:
    """All members are the parent's function in different clothes."""
    life = Life(tiny(config, **EARLY), folder)
    life.phase("abiogenesis", 200)
    one_generation(
        life, tried("2·gelu(x)", "gelu(x)+0.01·x", "0.5·gelu(x)+0.01·x²", "gelu(x)+0.02·relu(x)")
    )
    return life


def mismatch(config: RunConfig, folder: Path) -> Life:
    """A line that learns well goes on at 30 times its learning rate."""
    life = Life(tiny(config, **ALONE), folder)
    life.phase("abiogenesis", 200)
    life.phase("primordial", 120, lr_scale=30.0)
    return life


def divergence(config: RunConfig, folder: Path) -> Life:
    """Ten lines, over and over; what is held out is other text."""
    life = Life(tiny(config, **ALONE, **ten_lines(config, folder)), folder)
    life.phase("abiogenesis", 40)
    life.phase("primordial", 600)
    return life


def ten_lines(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Write a corpus of ten repeated lines and as much other text; return its settings.

    Every copy of the ten lines is one document, and equal documents stay on one side of a split;
    together they are too large for a held-out part.
    """
    documents = load_documents(tiny(config).data).documents
    lines = [line.strip() for text in documents for line in text.split("\n") if len(line) > 40]
    drawn = generator(config.seed, "ten lines").permutation(len(lines))
    block = "\n".join(lines[i] for i in drawn[:LINES])
    home = folder / "corpus"
    home.mkdir()
    others = pack([lines[i] + "\n" for i in drawn[LINES:]], len(block))[:COPIES]
    for index, text in enumerate(others):
        (home / f"other{index:03}.txt").write_text(text, encoding="utf-8")
    for index in range(round(1.1 * COPIES)):
        (home / f"block{index:03}.txt").write_text(block, encoding="utf-8")
    return {
        "data.corpus": str(home), "data.format": "plain", "data.max_bytes": None,
        "data.validation_frac": 0.25, "data.confirm_frac": 0.25,
    }  # fmt: skip


LINES = 10
COPIES = 110
EARLY = {"phases.cambrian.rung_steps": 8, "phases.cambrian.population": 4}


PLANTS = {
    "ten lines": Plant(
        "train/validation divergence", "the line learns ten repeated lines by heart", divergence
    ),
    "one function": Plant(
        "population collapse", "all members are one function in different clothes", collapse
    ),
    "mirror image": Plant(
        "transfer interference", "a child is minus its parent's function", interference
    ),
    "lr × 30": Plant(
        "learning-rate mismatch", "a good line goes on at 30 times its learning rate", mismatch
    ),
}
HEALTHY: dict[str, dict[str, Any]] = {
    "healthy": {},
    "healthy, no fusion": {"without": ("fusion", "kuramoto")},
}
"""Settings of healthy lives, beside the bench's own."""
