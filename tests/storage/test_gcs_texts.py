"""A corpus in a bucket is the corpus that a folder would be."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbio_core.config import DataSettings
from symbio_core.corpus import load_documents
from symbio_core.errors import BucketUnreachable, CorpusError, NotWritable, StorageError
from symbio_core.storage import texts
from symbio_core.storage.texts import Texts, fetch_texts
from tests.cloud.buckets import FAST, new_bucket
from tests.cloud.storage_faults import Rule
from tests.cloud.storage_server import StorageServer

NAMES = {
    "b.txt": "Second.\n\nText.", "a.md": "First.", "a/b.txt": "Below.", "a-b.TXT": "Dash.",
    "a/.hidden.txt": "No.", ".no/x.txt": "No.", "notes.pdf": "No.", "ü b.txt": "Umlaut.",
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[StorageServer]:
    with StorageServer() as running:
        yield running
        if running.faults.total:
            gc.collect()


@pytest.fixture
def bucket(server: StorageServer) -> str:
    return new_bucket(server)


def put(server: StorageServer, bucket: str, name: str, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    server.world.put(bucket, {"name": name}, {}, data)


def fetch(server: StorageServer, address: str, folder: Path, **how: int) -> Texts:
    return fetch_texts(address, folder, endpoint=server.url, retry=FAST, **how)


def documents(path: Path) -> tuple[str, ...]:
    return load_documents(DataSettings(corpus=str(path))).documents


def test_a_prefix_is_read_as_a_folder_of_the_same_texts(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    for name, text in NAMES.items():
        put(server, bucket, f"plays/{name}", text)
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(text, encoding="utf-8")
    put(server, bucket, "plays-of-others/x.txt", "Not ours.")
    for address in (f"gs://{bucket}/plays", f"gs://{bucket}/plays/"):
        texts = fetch(server, address, tmp_path / "cache")
        assert documents(texts.path) == documents(tmp_path / "here")


def test_a_single_text_is_fetched_whatever_its_ending(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    put(server, bucket, "deep/book", "One.")
    put(server, bucket, "deep/book.txt", "Another.")
    texts = fetch(server, f"gs://{bucket}/deep/book", tmp_path)
    assert texts.path.read_text(encoding="utf-8") == "One."
    assert texts.told(f"'{texts.path}' is odd") == f"'gs://{bucket}/deep/book' is odd"


def test_what_is_here_and_whole_is_not_fetched_again(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    put(server, bucket, "a.txt", "Once.")
    first = fetch(server, f"gs://{bucket}/a.txt", tmp_path)
    assert fetch(server, f"gs://{bucket}/a.txt", tmp_path) == first
    assert server.count("GET", "alt=media") == 1
    first.path.write_text("Damaged.", encoding="utf-8")
    assert fetch(server, f"gs://{bucket}/a.txt", tmp_path).path.read_bytes() == b"Once."
    assert server.count("GET", "alt=media") == 2


def test_a_new_generation_is_fetched_beside_the_old(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    put(server, bucket, "a.txt", "Old.")
    old = fetch(server, f"gs://{bucket}/a.txt", tmp_path)
    put(server, bucket, "a.txt", "New.")
    new = fetch(server, f"gs://{bucket}/a.txt", tmp_path)
    assert (old.path.read_bytes(), new.path.read_bytes()) == (b"Old.", b"New.")


@pytest.mark.parametrize("fault", ["corrupt_down", "truncate", "reset_mid", "503"])
def test_a_text_that_breaks_off_or_is_damaged_is_fetched_again(
    server: StorageServer, bucket: str, tmp_path: Path, fault: str
) -> None:
    put(server, bucket, "a.txt", "Whole and right.")
    server.faults.add(Rule(fault, "GET", "alt=media", count=1))
    texts = fetch(server, f"gs://{bucket}/a.txt", tmp_path)
    assert texts.path.read_bytes() == b"Whole and right."


def test_a_text_that_is_always_damaged_never_reaches_the_cache(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    put(server, bucket, "a.txt", "Whole and right.")
    server.faults.add(Rule("corrupt_down"))
    with pytest.raises(StorageError, match=r"gs://\S+/a\.txt does not arrive as its checksum"):
        fetch(server, f"gs://{bucket}/a.txt", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_more_texts_are_fetched_than_are_read(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    for n in range(5):
        put(server, bucket, f"t/{n}.txt", "x" * 100)
    texts = fetch(server, f"gs://{bucket}/t", tmp_path, max_bytes=150)
    assert len(list(texts.path.glob("*.txt"))) == 2


@pytest.mark.parametrize("name", ["../../up.txt", "a/../../up.txt", "/etc/x.txt", "a\nb.txt"])
def test_a_name_from_a_stranger_stays_in_the_cache(
    server: StorageServer, bucket: str, tmp_path: Path, name: str
) -> None:
    put(server, bucket, f"t/{name}", "From afar.")
    put(server, bucket, "t/fine.txt", "Fine.")
    texts = fetch(server, f"gs://{bucket}/t", tmp_path / "cache")
    assert all((tmp_path / "cache") in path.parents for path in tmp_path.rglob("*.txt"))
    assert "Fine." in documents(texts.path)


def test_a_text_that_was_uploaded_compressed_is_read(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    stored = server.world.put(bucket, {"name": "a.txt"}, {}, gzip.compress(b"Packed."))
    stored.content_encoding = "gzip"
    assert fetch(server, f"gs://{bucket}/a.txt", tmp_path).path.read_bytes() == b"Packed."


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip at all",
        gzip.compress(b"Packed." * 99)[:-9],
        gzip.compress(b"Packed." * 99)[:20] + b"\xff" * 30,
    ],
    ids=["no gzip", "cut short", "damaged"],
)
def test_a_packed_text_that_cannot_be_unpacked_is_said_so_in_one_line(
    server: StorageServer, bucket: str, tmp_path: Path, packed: bytes
) -> None:
    stored = server.world.put(bucket, {"name": "a.txt"}, {}, packed)
    stored.content_encoding = "gzip"
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        fetch(server, f"gs://{bucket}/a.txt", tmp_path)


def test_a_packed_text_that_would_fill_the_memory_is_refused(
    server: StorageServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "UNPACKED_BYTES", 1_000_000)
    stored = server.world.put(bucket, {"name": "a.txt"}, {}, gzip.compress(bytes(1_000_001)))
    stored.content_encoding = "gzip"
    with pytest.raises(CorpusError, match="unpacks to more than"):
        fetch(server, f"gs://{bucket}/a.txt", tmp_path)


@pytest.mark.parametrize(
    ("address", "denied", "words"),
    [
        ("gs://{}/none", set(), "is not there: no object of that name"),
        ("gs://no-such-bucket/a.txt", set(), "there is no bucket gs://no-such-bucket"),
        ("gs://{}/a.txt", {"list"}, "may not be read; grant roles/storage.objectViewer"),
        ("gs://{}/a.txt", {"get"}, "may not be read; grant roles/storage.objectViewer"),
        ("gs://", set(), "names no bucket"),
    ],
)
def test_what_is_wrong_with_a_corpus_is_said_in_one_line(
    server: StorageServer, tmp_path: Path, address: str, denied: set[str], words: str
) -> None:
    bucket = new_bucket(server, denied=denied)
    put_as_owner = server.world.buckets[bucket]
    put_as_owner.denied = set()
    put(server, bucket, "a.txt", "Text.")
    put_as_owner.denied = denied
    with pytest.raises(CorpusError, match=words) as error:
        fetch(server, address.format(bucket), tmp_path)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_a_service_that_stays_away_and_a_cache_that_refuses_are_told_apart(
    server: StorageServer, bucket: str, tmp_path: Path
) -> None:
    put(server, bucket, "a.txt", "Text.")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotWritable, match="SYMBIO_CACHE"):
        fetch(server, f"gs://{bucket}/a.txt", tmp_path / "file")
    server.faults.add(Rule("reset_before"))
    with pytest.raises(BucketUnreachable) as error:
        fetch_texts(
            f"gs://{bucket}/a.txt", tmp_path, endpoint=server.url, retry=FAST.with_timeout(0.2)
        )
    assert "\n" not in str(error.value)
