"""Runs in a bucket, killed at random moments while requests fail, go on from the bucket alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.config import RunConfig, changed
from symbio_core.runner.killing import command, fingerprint_at
from symbio_core.runner.processes import kill_tree
from symbio_core.runner.verifying import differences
from symbio_core.storage import gcs
from symbio_core.streams import generator
from tests.cloud.buckets import FAST
from tests.cloud.storage_faults import Rule
from tests.cloud.storage_server import StorageServer
from tests.conftest import SAID
from tests.faults.forking import Forked, ForkServer
from tests.faults.lives import shortest

SEED, KILLS = 7, 3
ROOT, RUN = "gs://mine/runs", "far"
FAULTS = ("503", "429", "reset_before", "reset_mid", "lost_reply", "truncate", "corrupt_down")
PATIENCE_S = 600.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StorageServer]:
    """A Cloud Storage that this process and those it starts find as a person's would be found."""
    with StorageServer() as running:
        running.world.add_bucket("mine")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setenv("SYMBIO_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(gcs, "retry_policy", lambda: FAST)
        monkeypatch.setattr(gcs._PACER, "interval_s", 0.0)
        yield running


@pytest.fixture
def forks(server: StorageServer) -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


def killed_after(process: Forked, server: StorageServer, requests: int) -> bool:
    """Kill a process once it has sent so many requests; say if it did not end before."""
    deadline, until = time.monotonic() + PATIENCE_S, len(server.calls) + requests
    while process.poll() is None and len(server.calls) < until:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    was_alive = process.poll() is None
    kill_tree(process)
    return was_alive


def words(config: RunConfig) -> list[str]:
    if RUN in runner.names(ROOT):
        return ["resume", RUN, "--plain", "--storage", ROOT]
    return command(config, RUN, plain=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_in_bad_weather_goes_on_from_the_bucket_alone_to_the_same_bits(
    server: StorageServer,
    forks: ForkServer,
    tiny_corpus: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    server.world.put("mine", {"name": "texts/tiny.txt"}, {}, tiny_corpus.read_bytes())
    config = changed(
        shortest(tiny_corpus, tmp_path / "folder"), {"data.corpus": "gs://mine/texts/tiny.txt"}
    )
    runner.live(runner.open_run(config, RUN))
    reference = fingerprint_at(config.storage.root, RUN)

    far = changed(config, {"storage.root": ROOT})
    rng, moments = generator(SEED, "kills in a bucket"), list[int]()
    server.faults.seed(SEED)
    server.faults.add(*(Rule(fault, probability=0.004) for fault in FAULTS))
    log = tmp_path / "far.log"
    while len(moments) < KILLS:
        requests = int(rng.integers(20, 400))
        if not killed_after(forks.launch(words(far), log), server, requests):
            break
        moments.append(requests)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    record_property(SAID, f"seed {SEED}, killed after {moments} requests")
    assert len(moments) == KILLS, log.read_text(encoding="utf-8")

    last = forks.launch(words(far), log)
    assert not killed_after(last, server, 10**9)
    assert last.code == 0, log.read_text(encoding="utf-8")
    server.faults.clear()
    assert server.faults.total >= 10
    assert differences(fingerprint_at(ROOT, RUN), reference) == []
    assert sorted(os.listdir(tmp_path)) == ["cache", "far.log", "folder"]
    assert os.listdir(tmp_path / "cache") == ["corpora"]
