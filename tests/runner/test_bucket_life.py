"""A run whose home is a bucket: the same life, and it goes on where only the bucket is left."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbio_core import runner
from symbio_core.cli.app import app
from symbio_core.config import RunConfig, changed
from symbio_core.errors import CorpusError, Interrupted
from symbio_core.progress import Progress, clear_stop, request_stop, subscribe
from symbio_core.runner import Run
from symbio_core.runner.exported import WEIGHTS
from symbio_core.runner.places import cache_folder, work_folder
from symbio_core.storage import gcs
from tests.cloud.buckets import FAST
from tests.cloud.storage_faults import Rule
from tests.cloud.storage_server import StorageServer
from tests.conftest import tiny


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StorageServer]:
    """A Cloud Storage that this process finds as a person's would be found."""
    with StorageServer() as running:
        running.world.add_bucket("mine")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setenv("SYMBIO_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(gcs, "retry_policy", lambda: FAST)
        monkeypatch.setattr(gcs._PACER, "interval_s", 0.0)
        monkeypatch.chdir(tmp_path)
        yield running


def essence(run: Run) -> list[object]:
    """Everything decided and why, and the bits of the model, without what a clock said."""
    weights = hashlib.sha256(run.store.read_file(WEIGHTS)).hexdigest()
    return [
        weights,
        *(attempt.decision.model_dump(exclude={"start", "dormant"}) for attempt in run.attempts),
        *(v.model_dump() for attempt in run.attempts for v in attempt.verdicts),
        *(s.text for attempt in run.attempts for s in attempt.battery.samples),
    ]


def in_bucket(config: RunConfig) -> RunConfig:
    return changed(
        config, {"storage.root": "gs://mine/runs", "data.corpus": "gs://mine/texts/tiny.txt"}
    )


def put_corpus(server: StorageServer, corpus: Path) -> None:
    server.world.put("mine", {"name": "texts/tiny.txt"}, {}, corpus.read_bytes())


def test_a_life_goes_on_to_the_same_end_when_only_the_bucket_is_left(
    server: StorageServer, tiny_corpus: Path, tmp_path: Path
) -> None:
    put_corpus(server, tiny_corpus)
    config = tiny(tiny_corpus, tmp_path / "folder")
    whole = runner.open_run(config, "whole")
    runner.live(whole)

    server.faults.seed(5)
    server.faults.add(
        *(Rule(fault, probability=0.01) for fault in ("503", "reset_mid", "lost_reply", "truncate"))
    )

    def stop(report: Progress) -> None:
        if report.activity == "searching" and report.step >= 70:
            request_stop()

    unsubscribe = subscribe(stop)
    with pytest.raises(Interrupted):
        runner.live(runner.open_run(in_bucket(config), "far"))
    unsubscribe()
    clear_stop()
    shutil.rmtree(tmp_path / "cache")

    resumed = runner.reopen("gs://mine/runs", "far")
    assert not resumed.is_finished
    runner.live(resumed)
    assert server.faults.total > 5
    assert essence(resumed) == essence(whole)
    # Nothing of the run lies here but what can be made again.
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "cache"}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"corpora"}
    server.faults.clear()
    a_person_sees_addresses_in_the_bucket(server)


def a_person_sees_addresses_in_the_bucket(server: StorageServer) -> None:
    words = ["--storage", "gs://mine/runs"]
    page = server.world.buckets["mine"].objects["runs/runs/far/report/report.html"].data.decode()
    assert "gs://mine/runs/runs/far/model/" in page
    assert CliRunner().invoke(app, ["sample", "far", "--prompt", "the", *words]).output.strip()
    assert "far" in CliRunner().invoke(app, ["runs", *words]).output
    again = CliRunner().invoke(app, ["resume", "far", "--plain", *words])
    assert again.exit_code == 0
    assert "report  gs://mine/runs/runs/far/report/report.html" in again.output
    assert "talk    symbio sample far --storage gs://mine/runs --prompt" in again.output


def test_a_corpus_that_is_too_small_is_told_by_its_address(
    server: StorageServer, tiny_corpus: Path, tmp_path: Path
) -> None:
    config = in_bucket(tiny(tiny_corpus, tmp_path))
    for text, words in ((b"Short.", "Add text"), (b"\xff\xfe", "not UTF-8"), (b" ", "is empty")):
        server.world.put("mine", {"name": "texts/tiny.txt"}, {}, text)
        with pytest.raises(CorpusError, match=r"'gs://mine/texts/tiny\.txt'") as error:
            runner.open_run(config, "small")
        assert words in str(error.value)
        assert str(tmp_path) not in str(error.value)
    assert runner.names("gs://mine/runs") == []


def test_what_can_be_made_again_lies_beside_the_runs_or_in_a_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SYMBIO_CACHE", "~/somewhere")
    assert work_folder("gs://mine/runs") == Path.home() / "somewhere"
    assert work_folder("storage") == Path("storage")
    monkeypatch.delenv("SYMBIO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/there")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == Path("/tmp/there/symbio")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "symbio"
