"""What the bench of saving says follows from what it measured, and what is slow is seen."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from symbio_core.benches import checkpoint, uploading
from symbio_core.config import RunConfig, changed
from symbio_core.storage import FolderStore, gcs
from symbio_core.storage.gcs import BucketStore
from tests.cloud.storage_server import StorageServer
from tests.conftest import tiny

HELD_S = 0.05


@pytest.fixture
def small(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(checkpoint, "LEAST_S", 0.05)
    return changed(tiny(tiny_corpus, tmp_path / "storage"), {"storage.save_every": 5})


def test_the_share_of_a_run_is_what_all_its_saves_stall_over_what_its_steps_take(
    small: RunConfig,
) -> None:
    one = checkpoint._Round(
        step_s=0.1, folder=checkpoint._Stalls(0.02, 0.03, 0.05),
        save=50.0, restore=80.0, write=100.0, read=200.0, size=10**6,
        sent=uploading.Speeds(1.0, 2.0, 3.0, 4.0), bucket=checkpoint._Stalls(0.04, 0.09, 0.1),
    )  # fmt: skip
    config = changed(small, {"budget.steps": 1000, "storage.save_every": 100})
    found = checkpoint._figures(config, [one])
    assert math.isclose(found["stall_frac"][0], (10 * 0.02 + 16 * 0.03) / (1000 * 0.1))
    assert math.isclose(found["slowed_frac"][0], 10 * 0.05 / (1000 * 0.1))
    assert math.isclose(found["bucket_stall_frac"][0], (10 * 0.04 + 16 * 0.09) / (1000 * 0.1))
    assert math.isclose(found["bucket_slowed_frac"][0], 10 * 0.1 / (1000 * 0.1))
    assert math.isclose(found["save_over_plain"][0], 0.5)
    assert math.isclose(found["restore_over_plain"][0], 0.4)
    assert found["upload_mb_per_s"] == np.array([1.0])
    assert found["plain_download_mb_per_s"] == np.array([4.0])


def test_a_disk_that_is_slow_at_the_end_of_a_phase_is_seen_in_the_stall_and_in_the_speed(
    small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    create = FolderStore.create

    def slow(store: FolderStore, key: str, data: bytes) -> str:
        time.sleep(HELD_S)
        return create(store, key, data)

    monkeypatch.setattr(FolderStore, "create", slow)
    [found] = checkpoint._rounds(small, 1, said.append)
    assert len(said) == 1
    # The manifest is written while nothing else goes on.
    assert found.folder.end_stall_s >= HELD_S
    assert found.save <= found.size / HELD_S / 1e6
    assert found.sent is not None
    assert all(getattr(found.sent, name) > 0.0 for name in uploading.Speeds.__slots__)


def test_each_figure_of_both_models_is_in_the_summary(
    small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "l4", lambda: changed(small, {"model.n_embd": 16}))
    table, data = checkpoint.measure(small, 1, 1, lambda line: None)
    names = {f"{end}{key}" for end in ("", "bucket_") for key in ("stall_frac", "slowed_frac")}
    names |= {f"{key}_mb_per_s" for key in ("save", "restore", "plain_write", "plain_read")}
    names |= {f"{key}_mb_per_s" for key in uploading.Speeds.__slots__}
    summary = data["summary"]
    assert {f"{key} {arm}" for key in names for arm in ("smoke", "l4")} <= set(summary)
    for key in ("stall_frac", "bucket_stall_frac"):
        assert summary[key] == max(summary[f"{key} smoke"], summary[f"{key} l4"]) > 0.0
    assert names <= {str(cell) for cell in table.columns[0].cells}
    assert [len(rounds) for rounds in data["rounds"].values()] == [1, 1]


def test_saves_to_a_bucket_stall_by_as_long_as_the_bucket_takes_and_none_stays_there(
    small: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = BucketStore.create

    def slow(store: BucketStore, key: str, data: bytes) -> str:
        time.sleep(HELD_S)
        return create(store, key, data)

    with StorageServer() as server:
        server.world.add_bucket("mine")
        monkeypatch.setenv(gcs.ENDPOINT_VARIABLE, server.url)
        monkeypatch.setenv("SYMBIO_CACHE", str(tmp_path))
        monkeypatch.setattr(BucketStore, "create", slow)
        far = changed(small, {"storage.root": "gs://mine/bench"})
        [found] = checkpoint._rounds(far, 1, lambda line: None)
        assert found.bucket is not None
        assert found.bucket.end_stall_s >= HELD_S
        assert server.world.buckets["mine"].objects == {}


def test_where_there_is_no_bucket_nothing_is_sent(
    small: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with uploading.reachable(small.storage.root) as bucket:
        assert bucket is None
    with uploading.reachable("gs://mine/runs") as bucket:
        assert bucket == "gs://mine/runs"
