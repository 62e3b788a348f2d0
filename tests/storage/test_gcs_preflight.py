"""What is wrong with a bucket is said in one line before anything is begun."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symbio_core.cli import main
from symbio_core.errors import BucketRefused, NotWritable, StorageError
from symbio_core.storage import open_store
from symbio_core.storage.gcs import BucketStore
from tests.cloud.buckets import bucket_store, new_bucket
from tests.cloud.storage_faults import Rule
from tests.cloud.storage_server import StorageServer


@pytest.fixture
def server() -> Iterator[StorageServer]:
    with StorageServer() as running:
        yield running


def refused(store: BucketStore, kind: type[StorageError]) -> str:
    with pytest.raises(kind) as error:
        store.check_writable(10**9)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_bucket_that_is_fine_is_left_as_it_was(server: StorageServer) -> None:
    store = bucket_store(server)
    store.check_writable(10**15)
    assert server.world.buckets[store.bucket_name].objects == {}
    assert server.count("POST") == 1
    assert server.count("DELETE") == 1


@pytest.mark.parametrize(
    ("verb", "right", "kind"),
    [
        ("create", "storage.objects.create", NotWritable),
        ("delete", "storage.objects.delete", NotWritable),
        ("get", "storage.objects.get", BucketRefused),
        ("list", "storage.objects.list", BucketRefused),
    ],
)
def test_a_missing_right_is_named(
    server: StorageServer, verb: str, right: str, kind: type[StorageError]
) -> None:
    bucket = new_bucket(server, denied={verb})
    message = refused(bucket_store(server, f"gs://{bucket}/runs"), kind)
    assert f"({right})" in message
    assert f"grant roles/storage.objectUser on gs://{bucket}" in message
    left = server.world.buckets[bucket].objects
    assert len(left) == (verb == "delete"), "a probe was left though it could be deleted"


def test_a_missing_bucket_is_named_with_the_command_that_makes_it(server: StorageServer) -> None:
    message = refused(bucket_store(server, "gs://not-there/runs"), BucketRefused)
    assert message.startswith("there is no bucket gs://not-there; ")
    assert "gcloud storage buckets create gs://not-there" in message


@pytest.mark.parametrize("wanted", ["europe-west4", "EUROPE-WEST4", "Europe-West4"])
def test_a_bucket_where_it_should_be_is_fine(server: StorageServer, wanted: str) -> None:
    bucket = new_bucket(server, location="EUROPE-WEST4")
    bucket_store(server, f"gs://{bucket}", location=wanted).check_writable()


def test_a_bucket_elsewhere_is_refused_before_anything_is_written(server: StorageServer) -> None:
    bucket = new_bucket(server, location="US")
    message = refused(bucket_store(server, f"gs://{bucket}", location="us-central1"), BucketRefused)
    assert f"gs://{bucket} lies in US and storage.location asks for us-central1" in message
    assert server.count("POST") == 0


def test_whether_a_bucket_lies_well_may_be_hidden(server: StorageServer) -> None:
    bucket = new_bucket(server, denied={"bucket"})
    bucket_store(server, f"gs://{bucket}").check_writable()
    message = refused(bucket_store(server, f"gs://{bucket}", location="us"), BucketRefused)
    assert "storage.buckets.get" in message
    assert "leave storage.location empty" in message


def test_credentials_that_expired_are_told(server: StorageServer) -> None:
    store = bucket_store(server)
    server.faults.add(Rule("401"))
    assert "gcloud auth application-default login" in refused(store, BucketRefused)


def test_missing_credentials_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    message = refused(BucketStore("gs://bucket/runs"), BucketRefused)
    assert message.startswith("no credentials for Google Cloud were found; run: gcloud auth ")


def started(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Start a run as a person does; return the exit status and the lines on standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "argv", ["symbio", "run", "--profile", "smoke", "--plain", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("bucket", "settings", "words"),
    [
        (None, [], "there is no bucket gs://mine; check its name, or make it: gcloud storage"),
        ({"denied": {"create"}}, [], "no permission to create gs://mine/runs/.*objectUser on"),
        ({"denied": {"get"}}, [], "no permission to read gs://mine/runs/.*objectUser on gs://"),
        ({"denied": {"list"}}, [], "no permission to list gs://mine/runs/.*objectUser on gs://"),
        (
            {"location": "US"},
            ["--set", "storage.location=us-central1"],
            "gs://mine lies in US and storage.location asks for us-central1; name a bucket there",
        ),
    ],
    ids=["no such bucket", "no right to create", "no right to read", "none to list", "elsewhere"],
)
def test_a_person_reads_in_one_line_what_is_wrong_with_the_bucket(
    server: StorageServer,
    bucket: dict[str, Any] | None,
    settings: list[str],
    words: str,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if bucket is not None:
        server.world.add_bucket("mine", **bucket)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    monkeypatch.chdir(tmp_path)
    line = ["--storage", "gs://mine/runs", "--corpus", str(tiny_corpus), *settings]
    code, told = started(line, capsys)
    assert code == 2
    assert len(told) == 1
    assert re.match(f"symbio: .*{words}", told[0])
    assert bucket is None or server.world.buckets["mine"].objects == {}
    assert list(tmp_path.iterdir()) == []


def test_a_person_without_credentials_reads_how_to_get_some(
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    code, told = started(["--storage", "gs://mine", "--corpus", str(tiny_corpus)], capsys)
    assert code == 2
    assert told == [
        "symbio: no credentials for Google Cloud were found; run: gcloud auth "
        "application-default login (on a machine of Google: give it a service account)"
    ]


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.startswith("google.cloud.storage")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BucketRefused, match=r"run: pip install 'google-cloud-storage") as error:
        open_store("gs://bucket/runs")
    assert "\n" not in str(error.value)


def test_the_well_known_variable_names_another_address(
    server: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket(server)
    for address in (server.url, server.url.removeprefix("http://")):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        store = open_store(f"gs://{bucket}/runs")
        store.check_writable()
        assert store.keys("") == []


def test_a_right_that_is_taken_away_midway_is_named(server: StorageServer) -> None:
    store = bucket_store(server)
    version = store.create("a", b"x")
    server.world.buckets[store.bucket_name].denied = {"delete", "list"}
    with pytest.raises(NotWritable, match=r"storage\.objects\.delete"):
        store.swap("a", b"y", version)
    with pytest.raises(BucketRefused, match=r"no permission to list .*storage\.objects\.list"):
        store.keys("")
    server.world.buckets[store.bucket_name].denied = {"get"}
    with pytest.raises(BucketRefused, match=r"no permission to read .*storage\.objects\.get"):
        store.read("a")
