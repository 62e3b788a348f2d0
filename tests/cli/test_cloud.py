"""`symbio cloud …` against a Compute Engine and a bucket on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from symbio_core import runner
from symbio_core.cli.app import app, out
from symbio_core.config import changed
from symbio_core.errors import LeaseHeld
from symbio_core.runner.accounts import read_ledger
from symbio_core.storage import open_store
from tests.cloud.compute_server import ComputeServer
from tests.cloud.storage_server import StorageServer
from tests.conftest import tiny
from tests.waiting import until

ROOT = "gs://runs/here"
ON_GCE = {
    "storage.root": ROOT,
    "compute.kind": "gce",
    "compute.gce.project": "my-project",
    "compute.elsewhere.prefect_api_url": "http://127.0.0.1:9/api",
}
PROJECT = ["--set", "compute.gce.project=my-project", "--storage", ROOT]
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def bucket() -> Iterator[StorageServer]:
    with StorageServer() as server:
        server.world.add_bucket("runs")
        yield server


@pytest.fixture(scope="module")
def gce(
    tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, bucket: StorageServer
) -> Iterator[ComputeServer]:
    folder = tmp_path_factory.mktemp("cloud")
    with (
        # What boots here finds no Python to start a worker with, and gives up slowly.
        ComputeServer(folder / "gce", env={"SYMBIO_VM_LAST_WORDS_S": "600"}) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        patch.setenv("SYMBIO_GCE_ENDPOINT", server.url)
        patch.setattr(out, "width", 200)
        patch.setenv("PATH", f"{_listening_gcloud(folder / 'bin')}:{os.environ['PATH']}")
        run = runner.begin(changed(tiny(tiny_corpus, folder), ON_GCE), "tree")
        run.release()
        yield server


def _listening_gcloud(folder: Path) -> Path:
    """Stand before any real gcloud: write down what is asked, and reach out to nobody."""
    folder.mkdir()
    script = folder / "gcloud"
    script.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/asked"\n', encoding="ascii")
    script.chmod(0o755)
    return folder


def symbio(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, ["cloud", *words], input=answer)


def test_a_machine_goes_up_is_seen_and_read_and_goes_down_with_its_costs(
    gce: ComputeServer,
) -> None:
    up = symbio("up", "tree", "--storage", ROOT)
    assert up.exit_code == 0, up.output
    assert "runs in us-central1-a" in up.output
    again = symbio("up", "tree", "--storage", ROOT)
    assert again.exit_code == 0
    assert len(gce.world.vms) == 1, "a run has one machine"

    seen = symbio("status", "tree", "--storage", ROOT)
    assert "RUNNING" in seen.output
    assert "g2-standard-4 (spot)" in seen.output
    assert "total $" in seen.output

    until(lambda: "boot for run tree" in symbio("logs", "tree", "--storage", ROOT).output)
    shell = symbio("ssh", "tree", "--storage", ROOT).output
    assert "gcloud compute ssh symbio-tree-" in shell
    assert "--tunnel-through-iap" in shell
    asked = Path(os.environ["PATH"].partition(":")[0]) / "asked"
    assert asked.read_text(encoding="ascii").startswith("compute ssh symbio-tree-")

    down = symbio("down", "tree", "--storage", ROOT)
    assert down.exit_code == 0, down.output
    assert gce.world.vms == {}
    assert "delete" in down.output
    assert "no machines" in symbio("status", *PROJECT).output


def test_a_run_that_a_parent_keeps_has_its_machine_neither_removed_nor_launched_by_hand(
    gce: ComputeServer,
) -> None:
    parent, calls = runner.reopen(ROOT, "tree"), len(gce.methods_called())
    parent.hold()
    try:
        for word in ("up", "down"):
            refused = symbio(word, "tree", "--storage", ROOT)
            assert isinstance(refused.exception, LeaseHeld), refused.output
    finally:
        parent.release()
    assert len(gce.methods_called()) == calls


def test_what_a_machine_cost_that_removed_itself_is_told_as_charged(gce: ComputeServer) -> None:
    assert symbio("up", "tree", "--storage", ROOT).exit_code == 0
    [(zone, name)] = gce.world.vms
    with gce.world.lock:
        gce.world.end("my-project", zone, name, "delete")
    until(lambda: not gce.world.vms)
    seen = symbio("status", "tree", "--storage", ROOT)
    assert "running" not in seen.output
    kept = read_ledger(open_store(ROOT), "tree").attempts[-1]
    assert (kept.name, kept.is_over, kept.why) == (name, True, "delete")
    [row] = [row for row in gce.bill() if row["name"] == name]
    assert kept.billed_s(0.0) == row["billed_s"]


def test_without_a_machine_there_is_nothing_to_log_in_to(gce: ComputeServer) -> None:
    refused = symbio("ssh", "tree", "--storage", ROOT)
    assert "has no machine now" in str(refused.exception)


def test_an_empty_project_has_nothing_to_sweep(gce: ComputeServer) -> None:
    assert "nothing to sweep" in symbio("sweep", *PROJECT).output


def test_what_no_run_needs_is_swept_after_a_question(
    gce: ComputeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert symbio("up", "tree", "--storage", ROOT).exit_code == 0
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3600.0)
    kept = symbio("sweep", *PROJECT, answer="n\n")
    assert "no live run holds it" in kept.output
    assert len(gce.world.vms) == 1
    swept = symbio("sweep", *PROJECT, "--yes")
    assert "removed" in swept.output
    assert gce.world.vms == {}
    ledger = read_ledger(open_store(ROOT), "tree")
    assert [one.why for one in ledger.attempts if not one.is_over] == []


def test_a_run_of_the_same_name_in_another_bucket_keeps_its_machine(
    gce: ComputeServer,
    bucket: StorageServer,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = "gs://others/runs"
    bucket.world.add_bucket("others")
    config = changed(tiny(tiny_corpus, tmp_path), ON_GCE | {"storage.root": theirs})
    runner.begin(config, "tree").release()
    assert symbio("up", "tree", "--storage", theirs).exit_code == 0
    [(zone, their_machine)] = gce.world.vms
    assert symbio("up", "tree", "--storage", ROOT).exit_code == 0
    assert len(gce.world.vms) == 2
    assert symbio("down", "tree", "--storage", ROOT).exit_code == 0
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3600.0)
    theirs_is_named = f"{their_machine} in {zone} is RUNNING for {theirs}"
    swept = symbio("sweep", *PROJECT, "--yes").output
    assert "nothing to sweep" in swept
    assert theirs_is_named in swept
    assert theirs_is_named in symbio("status", *PROJECT).output
    assert list(gce.world.vms) == [(zone, their_machine)]
    assert symbio("down", "tree", "--storage", theirs).exit_code == 0
    assert gce.world.vms == {}


def test_a_storage_that_is_no_bucket_is_told_so_and_hides_no_machine(
    gce: ComputeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert symbio("up", "tree", "--storage", ROOT).exit_code == 0
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3600.0)
    [name] = [name for _, name in gce.world.vms]
    seen = symbio("status", *PROJECT[:2]).output
    assert "no machines of storage" in seen
    assert f"{name} in us-central1-a is RUNNING for {ROOT}, see --storage {ROOT}" in seen
    swept = symbio("sweep", *PROJECT[:2], "--yes")
    assert f"is RUNNING for {ROOT}" in swept.output
    assert "--storage gs://BUCKET/PREFIX" in str(swept.exception)
    assert [name for _, name in gce.world.vms] == [name]
    assert symbio("down", "tree", "--storage", ROOT).exit_code == 0


def test_what_the_cap_refuses_by_hand_says_how_to_raise_it(
    gce: ComputeServer, tiny_corpus: Path, tmp_path: Path
) -> None:
    poor = ON_GCE | {"budget.max_usd": 0.001}
    runner.begin(changed(tiny(tiny_corpus, tmp_path), poor), "poor").release()
    refused = str(symbio("up", "poor", "--storage", ROOT).exception)
    assert f"go on with: symbio resume poor --storage {ROOT} --max-cost MORE" in refused
    assert gce.world.vms == {}


def test_the_doctors_table_cuts_nothing_off_in_a_terminal_of_80_columns(
    gce: ComputeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "width", 80)
    gce.permissions = set()
    try:
        lines = symbio("doctor", *PROJECT).output.splitlines()
    finally:
        gce.permissions = None
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("rights: "))]
    assert all(len(line) <= 80 for line in table)
    assert not [line for line in table if "…" in line]
    found = "".join(line[41:].strip() for line in table)
    assert "compute.instances.getSerialPortOutput" in found


def test_the_doctor_tries_the_bucket_and_says_what_mends_the_rest(gce: ComputeServer) -> None:
    gce.world.quotas = {"global": {"GPUS_ALL_REGIONS": 0.0}}
    try:
        told = symbio("doctor", *PROJECT)
    finally:
        gce.world.quotas = {}
    assert "can be written, read and listed" in told.output
    assert "common-cu129-ubuntu-2204" in told.output
    assert "ask for GPUS_ALL_REGIONS" in told.output
    assert told.exit_code == 1
