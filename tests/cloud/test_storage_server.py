"""The Cloud Storage of the tests refuses what the service refuses: asked by Google's own client."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError, PreconditionFailed
from google.cloud.storage import Blob, Client

from symbio_core.storage import gcs
from tests.cloud.storage_faults import KINDS, Faults, Rule
from tests.cloud.storage_server import StorageServer

LARGE = bytes(9 * 1024 * 1024)
"""More than the client sends in one request."""
NOT_MODIFIED, PRECONDITION_FAILED = 304, 412


@pytest.fixture(scope="module")
def server() -> Iterator[StorageServer]:
    with StorageServer() as running:
        running.world.add_bucket("mine")
        yield running


@pytest.fixture(scope="module")
def client(server: StorageServer) -> Client:
    made: Client = gcs.connect(server.url)
    return made


@pytest.fixture
def blob(server: StorageServer, client: Client) -> Iterator[Blob]:
    """An object at its third metageneration."""
    made = client.bucket("mine").blob("a")
    made.upload_from_string(b"first")
    for value in ("1", "2"):
        made.metadata = {"n": value}
        made.patch()
    assert made.metageneration == 3
    yield made
    server.world.buckets["mine"].objects.clear()


def upload(blob: Blob, data: bytes, **conditions: Any) -> None:
    blob.upload_from_file(io.BytesIO(data), size=len(data), **conditions)


def patch(blob: Blob, **conditions: Any) -> None:
    blob.metadata = {"n": "3"}
    blob.patch(**conditions)


READING: dict[str, Callable[..., object]] = {
    "look": lambda blob, **conditions: blob.reload(**conditions),
    "download": lambda blob, **conditions: blob.download_as_bytes(**conditions),
}
WRITING: dict[str, Callable[..., object]] = {
    "upload": lambda blob, **conditions: upload(blob, b"next", **conditions),
    "session": lambda blob, **conditions: upload(blob, LARGE, **conditions),
    "patch": patch,
    "delete": lambda blob, **conditions: blob.delete(**conditions),
}


MISSPELT = [("upload", "metageneration"), ("session", "metageneration")]
"""Here the client itself writes ifMetaGenerationNotMatch, which no service knows."""


def refusal(verb: Callable[..., object], blob: Blob, **conditions: int) -> int | None:
    """Return the status that a request is refused with, or None."""
    try:
        verb(blob, retry=None, **conditions)
    except GoogleAPICallError as error:
        return int(error.code or 0)
    return None


@pytest.mark.parametrize("what", ["generation", "metageneration"])
@pytest.mark.parametrize("name", [*READING, *WRITING])
def test_every_verb_keeps_to_every_precondition(
    server: StorageServer, blob: Blob, name: str, what: str
) -> None:
    verb = (READING | WRITING)[name]
    here = getattr(blob, what)
    match, differs = f"if_{what}_match", f"if_{what}_not_match"
    before = dict(server.world.buckets["mine"].objects)
    assert refusal(verb, blob, **{match: here + 1}) == PRECONDITION_FAILED
    refused = NOT_MODIFIED if name in READING else PRECONDITION_FAILED
    if (name, what) not in MISSPELT:
        assert refusal(verb, blob, **{differs: here}) == refused
    assert server.world.buckets["mine"].objects == before
    assert server.world.buckets["mine"].objects["a"].metadata == {"n": "2"}
    assert refusal(verb, blob, **{match: here}) is None


@pytest.mark.parametrize("what", ["generation", "metageneration"])
@pytest.mark.parametrize("name", [*READING, *WRITING])
def test_every_verb_goes_ahead_where_another_is_not_wanted(
    blob: Blob, name: str, what: str
) -> None:
    here = getattr(blob, what)
    assert refusal((READING | WRITING)[name], blob, **{f"if_{what}_not_match": here + 1}) is None


@pytest.mark.parametrize("kind", ["media", "resumable"])
def test_an_upload_is_refused_at_a_metageneration_that_is_not_wanted(
    server: StorageServer, blob: Blob, kind: str
) -> None:
    address = f"{server.url}/upload/storage/v1/b/mine/o?uploadType={kind}&name=a"
    for metageneration, status in ((3, PRECONDITION_FAILED), (2, 200)):
        wanted = f"{address}&ifMetagenerationNotMatch={metageneration}"
        assert requests.post(wanted, data=b"", timeout=60).status_code == status


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["upload", "session"])
def test_what_is_not_there_has_generation_zero(
    server: StorageServer, client: Client, data: bytes
) -> None:
    new = client.bucket("mine").blob("new")
    with pytest.raises(PreconditionFailed):
        upload(new, data, if_generation_match=5)
    with pytest.raises(PreconditionFailed):
        upload(new, data, if_metageneration_match=1)
    upload(new, data, if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        upload(new, data, if_generation_match=0)
    assert server.world.buckets["mine"].objects.pop("new").data == data


def test_a_session_is_held_against_its_precondition_at_its_end_as_well(
    server: StorageServer, blob: Blob
) -> None:
    generation, there = blob.generation, server.world.buckets["mine"].objects

    def overtake(method: str, path: str) -> None:
        if method == "PUT":
            server.before = lambda method, path: None
            server.world.put("mine", {"name": "a"}, {}, b"quicker")

    server.before = overtake
    with pytest.raises(PreconditionFailed):
        upload(blob, LARGE, if_generation_match=generation)
    assert there["a"].data == b"quicker"


def test_new_content_is_a_new_generation_and_new_metadata_a_new_metageneration(blob: Blob) -> None:
    before = (blob.generation, blob.metageneration)
    patch(blob)
    assert (blob.generation, blob.metageneration) == (before[0], before[1] + 1)
    upload(blob, b"next")
    assert blob.generation > before[0]
    assert blob.metageneration == 1
    with pytest.raises(PreconditionFailed):
        patch(blob, if_metageneration_match=4)
    patch(blob, if_metageneration_match=1)
    assert blob.metadata == {"n": "3"}


def test_changes_of_one_object_are_limited_and_those_of_others_are_not(
    server: StorageServer, blob: Blob, client: Client
) -> None:
    now = [0.0]
    server.world.clock, server.world.writes_per_s = (lambda: now[0]), 1.0
    try:
        upload(blob, b"1")
        assert refusal(WRITING["upload"], blob) == 429
        assert refusal(WRITING["patch"], blob) == 429
        upload(client.bucket("mine").blob("b"), b"1")
        now[0] = 1.0
        assert refusal(WRITING["patch"], blob) is None
    finally:
        server.world.writes_per_s = None


def test_what_a_writer_meets_follows_from_the_seed_whatever_others_send() -> None:
    def met(seed: int, others: int) -> list[str | None]:
        faults = Faults(seed)
        faults.add(*(Rule(kind, probability=0.1) for kind in (*KINDS, "503")))
        found = []
        for number in range(200):
            for _ in range(others):
                faults.draw("GET", "/a", set(KINDS), "other")
            found.append(faults.draw("POST", f"/{number}", set(KINDS), "one"))
        return found

    assert met(1, others=0) == met(1, others=3)
    assert met(1, others=0) != met(2, others=0)
    assert len(set(met(1, others=0))) == len(KINDS) + 2
