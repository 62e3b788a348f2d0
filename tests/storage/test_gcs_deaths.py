"""Die before each request of a phase's end: who comes next ends with the same.

To die after an answer leaves the bucket as to die before the next request.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import requests

from symbio_core.storage import RunStore
from symbio_core.storage.gcs import BucketStore
from tests.cloud.buckets import bucket_store, new_bucket
from tests.cloud.storage_server import StorageServer
from tests.storage.conftest import Died

LEAST_REQUESTS = 20
Dies = Callable[[int, Callable[[], object]], bool]


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Dies:
    """Lets a process die before a request (from 0); says whether it came so far."""
    send, left = requests.Session.send, [-1]

    def counted(session: requests.Session, request: Any, **how: Any) -> Any:
        if left[0] == 0:
            raise Died
        left[0] -= 1
        return send(session, request, **how)

    def die(number: int, work: Callable[[], object]) -> bool:
        left[0] = number
        try:
            work()
        except Died:
            return True
        finally:
            left[0] = -1
        return False

    monkeypatch.setattr(requests.Session, "send", counted)
    return die


def end_phase(run: RunStore, events: list[dict[str, Any]]) -> None:
    """Do what the end of a phase does, as far as the journal does not tell of it yet."""
    if not events:
        parts = {"member": {"w": np.arange(100, dtype=np.float32)}, "search": {"n": 1}}
        saved = run.checkpoints.save(parts, {}, step=2, kind="end")
        events = [{"event": "trained", "checkpoint": saved.id}]
        run.journal.append(events)
    run.write_state({"line": events[0]["checkpoint"]})
    run.checkpoints.retain({events[0]["checkpoint"]})


def told(store: BucketStore) -> dict[str, Any]:
    """Return all that a run is, but for who wrote it."""
    run = RunStore(store, "alpha")
    latest = run.checkpoints.latest()
    state = run.read_state() or {}
    return {
        "latest": latest and latest.id,
        "events": run.journal.read(),
        "line": state.get("line"),
        "files": store.keys(f"{run.checkpoints.home}/blobs/") + run.checkpoints._keys(),
    }


def test_whoever_dies_before_any_request_is_followed_to_the_same_end(dies: Dies) -> None:
    with StorageServer() as server:
        store = bucket_store(server, f"gs://{new_bucket(server)}/runs")
        objects = server.world.buckets[store.bucket_name].objects
        first = RunStore(store, "alpha")
        first.claim()
        first.checkpoints.save({"member": {"w": np.zeros(9)}}, {}, step=1, kind="step")
        before = dict(objects)
        end_phase(first, [])
        expected = told(store)
        for number in count():
            objects.clear()
            objects.update(before)
            run = RunStore(store, "alpha")
            run.claim(take_over=True)
            died = dies(number, lambda run=run: end_phase(run, []))
            again = RunStore(store, "alpha")
            events = again.claim(take_over=True)
            newest = again.checkpoints.newest_whole()
            assert newest.damaged == ()
            assert newest.manifest is not None
            assert newest.manifest.step in (1, 2)
            end_phase(again, events)
            assert told(store) == expected, f"after a death before request {number}"
            if not died:
                break
        assert number >= LEAST_REQUESTS
