"""Real SIGKILLs of real runs at random and at chosen moments: each ends with the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from symbio_core.config import RunConfig
from symbio_core.runner.killing import (
    WHOLE,
    Life,
    draw_moments,
    fingerprint_at,
    live_killed,
)
from symbio_core.runner.verifying import Fingerprint, differences
from symbio_core.streams import generator
from tests.faults.forking import ForkServer
from tests.faults.lives import shortest

SEED = 20_240
LIVES = 5
KILLS_A_LIFE = 6


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def config(tiny_corpus: Path, root: Path) -> RunConfig:
    return shortest(tiny_corpus, root)


@pytest.fixture(scope="module")
def whole(config: RunConfig, forks: ForkServer, root: Path) -> tuple[Life, Fingerprint]:
    life = live_killed(config, WHOLE, (), launch=forks.launch)
    return life, fingerprint_at(str(root), WHOLE)


@pytest.fixture(scope="module")
def lives(config: RunConfig, forks: ForkServer, whole: tuple[Life, Fingerprint]) -> dict[str, Life]:
    rng = generator(SEED, "kills")
    found: dict[str, Life] = {}
    while len(found) < LIVES or sum(len(life.kills) for life in found.values()) < 30:
        name = f"killed-{len(found)}"
        moments = draw_moments(rng, KILLS_A_LIFE + 2, whole[0].last_s)
        found[name] = live_killed(config, name, moments, launch=forks.launch)
        print(f"seed {SEED}, {name}: {', '.join(map(str, found[name].kills))}")
    return found


def test_lives_killed_thirty_times_end_with_the_bits_of_the_whole_one(
    lives: dict[str, Life], whole: tuple[Life, Fingerprint], root: Path
) -> None:
    assert sum(len(life.kills) for life in lives.values()) >= 30
    for name in lives:
        assert differences(fingerprint_at(str(root), name), whole[1]) == []
