"""A run's machine as its parent keeps it: its costs, its refusals, its secrets, its silence."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployments.surroundings import PROJECT
from deployments.vm.watchdog import is_alive
from symbio_core import progress, runner
from symbio_core.config import changed
from symbio_core.errors import ConfigError, Interrupted, LeaseLost, SwapLost
from symbio_core.runner import Run
from symbio_core.runner.accounts import enter_costs, read_failures, read_ledger
from symbio_core.runner.elsewhere import sit
from symbio_core.runner.machines import RunMachine
from symbio_core.storage.post import Post, Turn
from tests.cloud.compute_server import ComputeServer, Timings
from tests.cloud.plain_worker import python_for
from tests.cloud.setting import ON_MACHINES, ROOT, machines
from tests.cloud.storage_server import StorageServer
from tests.cloud.wire import Wire
from tests.compute.conftest import HASTY
from tests.conftest import tiny
from tests.waiting import until

ON_GCE: dict[str, Any] = ON_MACHINES | {
    "without": ["search", "final"],
    "budget.steps": 400_000,
    "storage.save_every": 20,
    "compute.elsewhere.beat_s": 1.0,
    "compute.elsewhere.lost_after_s": 6.0,
}
KEY = "PREFECT_API_KEY"
VALUE = "pnu_correct-horse-battery"
# What the startup script starts instead of the watchdog: it writes down the key, and waits.
LISTENER = (
    f'#!/bin/sh\nprintf %s "${KEY}" >"$4/seen.part"\nmv "$4/seen.part" "$4/seen"\nsleep 600\n'
)
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Place:
    """A bucket with a run in it, a Compute Engine, and the parents that keep the run's machine."""

    def __init__(self, run: Run, gce: ComputeServer, bucket: StorageServer) -> None:
        self.run, self.gce, self.bucket = run, gce, bucket
        self.said: list[str] = []

    def parent(self, **secrets: str) -> RunMachine:
        return RunMachine(
            "tree",
            self.run.config,
            self.run.store.store,
            api_url="",
            project=PROJECT,
            say=self.said.append,
            account=lambda ledger: enter_costs(self.run, ledger),
            secrets=secrets,
            patience=HASTY,
        )


@pytest.fixture
def place(tmp_path: Path, tiny_corpus: Path) -> Iterator[Place]:
    listener = tmp_path / "listener"
    listener.write_text(LISTENER, encoding="ascii")
    listener.chmod(0o755)
    timings = Timings(grace_s=0.2)
    with machines(tmp_path, str(listener), timings, SYMBIO_VM_SECRET_TRIES="1") as (gce, bucket):
        run = runner.begin(changed(tiny(tiny_corpus, tmp_path), ON_GCE), "tree")
        yield Place(run, gce, bucket)
        run.release()
        progress.clear_stop()
    assert gce.world.failures == []


def test_journal_and_state_hold_the_figures_of_the_ledger_and_of_the_bill(place: Place) -> None:
    place.gce.world.stockouts = {("us-central1-a", True)}
    parent = place.parent()
    parent.up()
    parent.give_up("preempted")
    place.gce.world.stockouts = set()
    parent.up()
    [*_, under_way] = place.run.state.machines
    assert (under_way.ended, under_way.is_over) == ("running", False)
    ledger = parent.remove()

    assert ledger == read_ledger(place.run.store.store, "tree")
    told = tuple(one.cost(0.0) for one in ledger.attempts)
    assert place.run.state.machines == told
    state = runner.reopen(ROOT, "tree").store.read_state()
    assert state is not None
    assert state["machines"] == [one.model_dump(mode="json") for one in told]
    image = "projects/deeplearning-platform-release/global/images/"
    assert [one.image.startswith(image) for one in told] == [False, True, True]
    assert [one.ended for one in told] == ["ZONE_RESOURCE_POOL_EXHAUSTED", "delete", "delete"]
    charged = {row["name"]: row["billed_s"] for row in place.gce.bill()}
    assert {one.name: one.billed_s for one in told if one.billed_s} == charged


def test_a_parent_that_starts_again_counts_on_from_the_failures_of_the_one_before(
    place: Place,
) -> None:
    first = place.parent()
    machine = first.up()
    first.give_up("preempted")
    again = place.parent()
    assert again.launcher.failures == first.launcher.failures
    assert [failure.place.zone for failure in again.launcher.failures] == [machine.zone]
    again.progressed()
    assert read_failures(place.run.store.store, "tree") == ()
    assert place.parent().launcher.failures == []


def test_a_parent_leaves_the_entries_of_another_in_the_ledger(place: Place) -> None:
    store, first, other = place.run.store.store, place.parent(), place.parent()
    first.up()
    [own] = first.launcher.ledger.attempts
    theirs = own.model_copy(update={"name": "by-hand", "is_over": True})
    other._remember(other.launcher.ledger.ordered(theirs))
    first.give_up("preempted")
    first.up()
    names = [one.name for one in read_ledger(store, "tree").attempts]
    assert names[:2] == [own.name, "by-hand"]
    assert len(names) == 3
    assert first.launcher.ledger == read_ledger(store, "tree"), "the cap counts what others spend"

    late = other.launcher.ledger.ordered(own.model_copy(update={"name": names[2]}))
    with pytest.raises(SwapLost, match="has a machine"):
        other._remember(late)
    first.remove()


def test_a_parent_that_lost_the_run_to_another_orders_no_machine(place: Place) -> None:
    parent = place.parent()
    other = runner.reopen(ROOT, "tree")
    other.claim(take_over=True)
    with pytest.raises(LeaseLost):
        parent.up()
    assert "insert" not in place.gce.methods_called()
    other.release()


def test_a_machine_that_is_being_launched_when_the_run_is_removed_never_comes(
    place: Place,
) -> None:
    place.gce.world.timings.provision_s = 2.0
    parent = place.parent()
    with ThreadPoolExecutor(1) as another:
        launch = another.submit(parent.up)
        until(lambda: place.gce.world.vms)
        ledger = parent.remove()
        assert launch.done(), "nothing is ordered after the removal"
        with pytest.raises(Interrupted):
            launch.result()
    assert place.gce.world.vms == {}
    assert place.gce.methods_called().count("insert") == 1
    assert [one.is_over for one in ledger.attempts] == [True]
    with pytest.raises(Interrupted):
        parent.up()


def test_a_run_that_is_stopped_while_its_zones_rest_orders_nothing_more(place: Place) -> None:
    place.run.config = changed(place.run.config, {"compute.gce.retry_after_s": 20.0})
    place.gce.world.stockouts = {("us-central1-a", True), ("us-central1-b", True)}
    parent = place.parent()
    with ThreadPoolExecutor(1) as another:
        launch = another.submit(parent.up)
        until(lambda: any("rests for another" in line for line in place.said))
        progress.request_stop()
        with pytest.raises(Interrupted):
            launch.result(10.0)
    assert place.gce.methods_called().count("insert") == 2
    assert parent.remove().usd(time.time()) == 0.0


def test_the_operators_key_reaches_the_worker_and_is_seen_nowhere_else(place: Place) -> None:
    parent = place.parent(**{KEY: VALUE, "ANOTHER": "not asked for"})
    machine = parent.up()
    vm = place.gce.world.vms[machine.zone, machine.name]
    until((vm.disk / "symbio" / "seen").exists)
    assert (vm.disk / "symbio" / "seen").read_text(encoding="ascii") == VALUE

    store = place.run.store.store
    objects = [store.read(key) for key in store.keys("runs/")]
    seen = [
        json.dumps(vm.resource),
        place.gce.world.serial(vm).decode(),
        *place.said,
        *(found.data.decode(errors="replace") for found in objects if found),
    ]
    assert "symbio-secret-PREFECT_API_KEY" in seen[0]
    assert "secret PREFECT_API_KEY is there" in seen[1]
    for text in seen:
        assert VALUE not in text
        assert base64.b64encode(VALUE.encode()).decode() not in text
        assert "ya29" not in text

    parent.remove()
    assert place.gce.vault.secrets == {}
    assert place.gce.world.vms == {}


def test_a_secret_that_a_setting_names_is_not_made_anew(place: Place) -> None:
    named = {"compute.elsewhere.secrets": {KEY: "projects/my-project/secrets/mine"}}
    config = changed(place.run.config, named)
    store = place.run.store.store
    parent = RunMachine("tree", config, store, api_url="", project=PROJECT, secrets={KEY: VALUE})
    assert parent.secrets == {}
    told = parent.launcher.metadata
    assert told["symbio-secret-PREFECT_API_KEY"] == "projects/my-project/secrets/mine"


def test_a_password_in_the_parents_own_address_of_the_server_reaches_no_machine(
    place: Place,
) -> None:
    config = changed(place.run.config, {"compute.elsewhere.prefect_api_url": None})
    address, store = "http://admin:hunter2@10.0.0.2:4200/api", place.run.store.store
    parent = RunMachine("tree", config, store, api_url=address, project=PROJECT, secrets={})
    with pytest.raises(ConfigError, match="PREFECT_API_AUTH_STRING") as error:
        parent.up()
    assert "hunter2" not in str(error.value)
    assert place.gce.methods_called() == []
    assert read_ledger(store, "tree").attempts == ()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_machine_that_loses_its_network_is_replaced_and_cannot_write_when_it_wakes(
    place: Place, tmp_path: Path
) -> None:
    plan = place.run.plan_next()
    assert plan is not None
    post, store = Post(place.run.store, plan), place.run.store.store
    post.give_turn(None, Turn(number=1))
    parent = place.parent()
    with Wire(place.bucket.url) as to_bucket, Wire(place.gce.url) as to_api:
        place.gce.world.env |= {
            "STORAGE_EMULATOR_HOST": to_bucket.url,
            "SYMBIO_GCE_ENDPOINT": to_api.url,
            "SYMBIO_VM_PYTHON": python_for(tmp_path),
        }
        machine = parent.up()
        pulse = until(lambda: (p := post.pulse()) and p.step and p)
        to_bucket.cut()
        to_api.cut()
        # The service sees nothing wrong with it; its silence is what tells, well in two minutes.
        assert "no word from it" in until(parent.wrong)
        assert store.exists("runs/tree/LEASE")
        assert place.gce.world.vms[machine.zone, machine.name].status == "RUNNING"

        post.give_turn(post.turn(), Turn(number=2, end="it has trained for long enough"))
        progress.request_end("it has trained for long enough")
        with sit(ROOT, "tree", plan, 2) as elsewhere:
            elsewhere.train(plan)
            elsewhere.write_battery(plan)
        before = _truth(place)
        assert is_alive(pulse.pid)
        to_bucket.mend()
        to_api.mend()
        disk = place.gce.world.vms[machine.zone, machine.name].disk
        until(lambda: not (disk / "symbio" / "phase.pid").exists())
        assert _truth(place) == before
        assert place.run.enter(plan, post.lines())

        parent.give_up("no word from it")
        place.gce.world.env["SYMBIO_VM_PYTHON"] = str(tmp_path / "listener")
        replaced = parent.up()
    assert (replaced.zone, place.gce.world.most_alive) == ("us-central1-b", 1)
    parent.remove()
    assert place.gce.world.vms == {}


def _truth(place: Place) -> dict[str, str]:
    """Return versions of all that moves in the run, but for the word of its machine."""
    store = place.run.store.store
    names = [f"runs/tree/{name}" for name in ("state.json", "checkpoints/LATEST")]
    names += [*store.keys("runs/tree/elsewhere/"), *store.keys("runs/tree/journal/")]
    found = {name: store.read(name) for name in names}
    return {name: one.version for name, one in found.items() if one}
