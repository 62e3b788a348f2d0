"""Each bad input is refused at once, by one line that a person can use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from symbio_core import runner
from symbio_core.cli.app import app
from symbio_core.config import RunConfig, changed
from symbio_core.errors import (
    BucketRefused,
    BudgetTooSmall,
    ConfigError,
    CorpusError,
    DiskTooFull,
    NoDevice,
    NotWritable,
    SymbioError,
    UnknownRun,
)


def refused(config: RunConfig, kind: type[SymbioError], run_id: str = "refused") -> str:
    with pytest.raises(kind) as caught:
        runner.open_run(config, run_id)
    message = str(caught.value)
    assert "\n" not in message
    assert not (Path(config.storage.root) / "runs" / run_id).exists(), "something was begun"
    return message


def test_a_corpus_that_is_not_there(tiny_config: RunConfig) -> None:
    message = refused(changed(tiny_config, {"data.corpus": "nowhere.txt"}), CorpusError)
    assert "nowhere.txt" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"abc \xff\xfe def" * 9000, "UTF-8"), (b"only a few words", "Add text")],
)
def test_a_corpus_that_will_not_do(
    tiny_config: RunConfig, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    message = refused(changed(tiny_config, {"data.corpus": str(path)}), CorpusError)
    assert words in message
    assert "bad" in message


def test_a_budget_too_small_names_the_one_that_would_do(tiny_config: RunConfig) -> None:
    message = refused(changed(tiny_config, {"budget.steps": 50}), BudgetTooSmall)
    would_do = int(message.rpartition("--budget ")[2])
    runner.open_run(changed(tiny_config, {"budget.steps": would_do}), "enough")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimiser.peak_lr": -1}, "peak_lr"),
        ({"search.mutatoin": 0.5}, "mutatoin"),
        ({"model.n_embd": 30, "model.n_head": 4}, "n_embd"),
        ({"data.validation_frac": 0.4, "data.confirm_frac": 0.4}, "0.5 or less"),
        ({"seed": "one"}, "seed"),
    ],
)
def test_a_setting_that_will_not_do(
    tiny_config: RunConfig, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(tiny_config, changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_storage_root_that_cannot_be_written(tiny_config: RunConfig, tmp_path: Path) -> None:
    blocker = tmp_path / "a-file"
    blocker.write_text("not a folder")
    root = str(blocker / "below")
    with pytest.raises(NotWritable) as caught:
        runner.open_run(changed(tiny_config, {"storage.root": root}), "refused")
    assert str(blocker) in str(caught.value)


def test_a_bucket_without_credentials_is_refused(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(BucketRefused, match="gcloud auth application-default"):
        runner.open_run(changed(tiny_config, {"storage.root": "gs://bucket/x"}), "refused")


def test_a_disk_too_small_for_the_checkpoints_to_come(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    message = refused(tiny_config, DiskTooFull)
    assert "free" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(tiny_config: RunConfig) -> None:
    message = refused(changed(tiny_config, {"compute.device": "cuda"}), NoDevice)
    assert "compute.device=cpu" in message


def test_a_run_that_does_not_exist_lists_those_that_do(tiny_config: RunConfig) -> None:
    runner.open_run(tiny_config, "here")
    with pytest.raises(UnknownRun, match="here"):
        runner.reopen(tiny_config.storage.root, "hera")


def test_a_root_without_runs_says_where_a_mount_may_be_missing(tmp_path: Path) -> None:
    gone, empty, used = tmp_path / "gone", tmp_path / "empty", tmp_path / "used"
    empty.mkdir()
    (used / "corpora").mkdir(parents=True)
    for root, told in (
        (gone, "there is no such folder; is its disk mounted?"),
        (empty, "that folder is empty; is its disk mounted?"),
        (used, "yet; start one with `symbio run`"),
    ):
        for command in (["resume", "one"], ["status"], ["runs"]):
            done = CliRunner().invoke(app, [*command, "--storage", str(root)])
            said = done.output + str(done.exception)
            assert f"no runs in {root} yet" in said
            assert told in said
    assert not gone.exists()


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("not a folder")
    for command in (["resume", "one"], ["status"], ["runs"], ["fsck", "one"]):
        done = CliRunner().invoke(app, [*command, "--storage", str(root)])
        assert isinstance(done.exception, ConfigError)
        assert f"storage root '{root}' is a file; give a folder" in str(done.exception)


def test_a_name_that_is_taken(tiny_config: RunConfig) -> None:
    runner.open_run(tiny_config, "taken")
    with pytest.raises(ConfigError, match="symbio resume taken"):
        runner.open_run(tiny_config, "taken")


def test_a_name_that_no_folder_should_have(tiny_config: RunConfig) -> None:
    with pytest.raises(ConfigError, match="not a run name"):
        runner.open_run(tiny_config, "../escape")


def test_an_elder_that_has_nothing_to_give_yet(tiny_config: RunConfig) -> None:
    elder = runner.open_run(tiny_config, "elder")
    assert elder.plan_next() is not None
    with pytest.raises(ConfigError, match="no judged checkpoint"):
        runner.open_run(changed(tiny_config, {"start_from": "elder"}), "child")
