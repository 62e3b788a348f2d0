"""Whether each start of a phase goes on where the one before it had saved, as the bucket saw it."""

from __future__ import annotations

import json
from itertools import count

import pytest

from symbio_core.storage.checkpoints import Manifest, Pointer
from symbio_core.storage.post import Pulse
from tests.cloud.past import Past
from tests.cloud.storage_world import World

Told = tuple[int, int]
"""A turn and a step."""
ORDERS = count()


def pulse(world: World, turn: int, step: int) -> None:
    data = Pulse(turn=turn, holder="somebody", step=step).model_dump_json().encode()
    world.put("runs", {}, {"name": "here/runs/far/elsewhere/cambrian-1/pulse.json"}, data)


def save(world: World, step: int, kind: str = "step", phase: str = "cambrian") -> None:
    name(world, write(world, step, kind, phase))


def write(world: World, step: int, kind: str = "step", phase: str = "cambrian") -> Manifest:
    """Write a manifest, which is no save until it is named."""
    order = next(ORDERS)
    meta = {"phase": phase, "attempt": 1}
    manifest = Manifest(run_id="far", step=step, kind=kind, order=order, parts={}, meta=meta)
    at = f"here/runs/far/checkpoints/manifests/{manifest.id}.json"
    world.put("runs", {}, {"name": at}, manifest.data)
    return manifest


def name(world: World, manifest: Manifest) -> None:
    data = Pointer(id=manifest.id, order=manifest.order).sealed.model_dump_json().encode()
    world.put("runs", {}, {"name": "here/runs/far/checkpoints/LATEST"}, data)


@pytest.fixture
def world() -> World:
    world = World()
    world.add_bucket("runs")
    return world


def test_starts_are_told_apart_by_their_turns(world: World) -> None:
    past = Past(world)
    save(world, 40, phase="primordial")  # From before anybody looked.
    pulse(world, 1, 0)
    pulse(world, 1, 50)
    save(world, 100)
    world.put("runs", {}, {"name": "here/runs/far/state.json"}, json.dumps({}).encode())
    pulse(world, 2, 0)
    pulse(world, 2, 101)
    save(world, 200)
    save(world, 200, kind="end")
    assert past.saved("cambrian-1") == [200]
    assert past.saved("primordial-1") == []
    assert [(one.turn, one.told, one.saved) for one in past.starts["cambrian-1"]] == [
        (1, [50], [100]),
        (2, [101], [200]),
    ]
    assert past.wrong() == []


@pytest.mark.parametrize(
    ("told", "saved"), [((2, 7), 300), ((2, 199), 300), ((2, 250), 100), ((2, 250), 200)]
)
def test_a_start_that_trains_again_what_was_saved_is_seen(
    told: Told, saved: int, world: World
) -> None:
    past = Past(world)
    pulse(world, 1, 210)
    save(world, 100)
    save(world, 200)
    assert past.wrong() == []
    pulse(world, *told)
    save(world, saved)
    [wrong] = past.wrong()
    assert wrong.startswith("cambrian-1, turn 2: step 200 was saved")


def test_what_was_written_and_not_named_is_nothing_to_go_on_from(world: World) -> None:
    past = Past(world)
    pulse(world, 1, 20)
    save(world, 20)
    write(world, 40)
    pulse(world, 2, 21)
    save(world, 40)
    assert past.wrong() == []
    again = write(world, 60)
    name(world, again)
    name(world, again)  # Whoever takes the run over names it once more.
    assert past.saved("cambrian-1") == [40, 60]
