"""The third layer against orphans: what nobody needs is found by its label, and removed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import LABEL, RUN_LABEL, Disk, Machine, label_value
from symbio_core.compute.sweep import GRACE_S, find_orphans, orphans, sweep
from symbio_core.config import GceSettings
from tests.cloud.compute_server import ComputeServer
from tests.compute.conftest import HASTY, order

HOUR = 3600.0
NOW = 1_000_000.0


def machine(run: str = "tree", *, age_s: float = HOUR, status: str = "RUNNING") -> Machine:
    return Machine(
        name=f"m-{run}-{age_s:g}", zone="us-central1-a", id="1", status=status,
        machine_type="g2-standard-4", spot=True, created=NOW - age_s,
        labels={LABEL: "symbio", RUN_LABEL: label_value(run)},
    )  # fmt: skip


def disk(*, age_s: float = HOUR, is_used: bool = False) -> Disk:
    return Disk(name="d", zone="us-central1-a", size_gb=100, created=NOW - age_s, is_used=is_used)


def names(*machines: Machine, live: set[str] | None, longest_s: float = 24 * HOUR) -> list[str]:
    found = orphans(machines, (), live_runs=live, now=NOW, longest_s=longest_s)
    return [orphan.name for orphan in found]


def test_a_machine_whose_run_lives_is_left_alone() -> None:
    assert names(machine("Grün"), live={"Grün"}) == []


def test_a_machine_without_a_live_run_is_an_orphan() -> None:
    assert len(names(machine(), machine(status="TERMINATED", age_s=2 * HOUR), live={"other"})) == 2


def test_a_machine_that_is_just_made_is_left_alone() -> None:
    assert names(machine(age_s=GRACE_S - 1), live=set()) == []


def test_a_machine_on_its_way_out_is_left_alone() -> None:
    assert names(machine(status="STOPPING"), live=set()) == []


def test_a_machine_older_than_its_cap_is_an_orphan_even_of_a_live_run() -> None:
    assert names(machine(age_s=25 * HOUR), live={"tree"}) != []
    assert names(machine(age_s=23 * HOUR), live={"tree"}) == []


def test_without_knowing_who_lives_only_age_counts() -> None:
    assert names(machine(), live=None) == []
    assert names(machine(age_s=25 * HOUR), live=None) != []


def test_a_disk_that_nobody_uses_is_an_orphan() -> None:
    disks = [disk(), disk(is_used=True), disk(age_s=1.0)]
    found = orphans((), disks, live_runs=None, now=NOW, longest_s=HOUR)
    assert [orphan.kind for orphan in found] == ["disk"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 1e5)), max_size=8))
def test_no_young_machine_of_a_live_run_is_ever_chosen(born: list[tuple[str, float]]) -> None:
    machines = [machine(run, age_s=age_s) for run, age_s in born]
    found = orphans(machines, (), live_runs={"a", "b"}, now=NOW, longest_s=24 * HOUR)
    chosen = {(orphan.run, orphan.age_s) for orphan in found}
    for one in machines:
        age_s = NOW - (one.created or 0.0)
        if age_s < GRACE_S or (one.run in ("a", "b") and age_s <= 24 * HOUR):
            assert (one.run, age_s) not in chosen


@pytest.mark.parametrize("method", ["delete", "aggregatedList"])
def test_orphans_are_removed_and_only_they(
    method: str, server: ComputeServer, provisioner: Provisioner, settings: GceSettings
) -> None:
    orphan = provisioner.launch(order(number=1))
    kept = provisioner.launch(
        order(number=2).model_copy(update={"run_id": "alive", "name": "symbio-alive-1"})
    )
    other = settings.model_copy(update={"label": "another-project"})
    foreign = Provisioner(other, endpoint=server.url, patience=HASTY).launch(order(number=3))
    with server.world.lock:
        left = dict(server.world.disks[orphan.zone, orphan.name], name="left", users=[])
        server.world.disks[orphan.zone, "left"] = left
    server.fail(method, 503)
    found = find_orphans(provisioner, live_runs={"alive"}, clock=time.time, grace_s=0.0)
    assert [(one.kind, one.name) for one in found] == [("machine", orphan.name), ("disk", "left")]
    assert all(one.removed for one in sweep(provisioner, found))
    assert {name for _, name in server.world.vms} == {kept.name, foreign.name}
    assert {name for _, name in server.world.disks} == {kept.name, foreign.name}


def test_an_orphan_that_resists_does_not_keep_the_others(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    first = provisioner.launch(order(number=1))
    provisioner.launch(order(number=2))
    server.fail("delete", 403)
    found = find_orphans(provisioner, live_runs=set(), clock=time.time, grace_s=0.0)
    swept = sweep(provisioner, found)
    assert [one.removed for one in swept] == [False, True]
    assert "forbidden" in swept[0].trouble
    assert [name for _, name in server.world.vms] == [first.name]
