"""One machine for a run: reused, started again, or launched elsewhere; each in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from symbio_core.compute.failover import PREEMPTED, Failure
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.launching import Launcher
from symbio_core.compute.ledger import Ledger
from symbio_core.compute.machines import Machine, machine_name, reuse
from symbio_core.config import GceSettings
from symbio_core.errors import NoCapacity, PriceCapReached, PriceUnknown
from tests.cloud.compute_server import ComputeServer
from tests.compute.conftest import HASTY, order
from tests.waiting import until

STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED"


def ctrl_c(_seconds: float) -> None:
    raise KeyboardInterrupt


INTERRUPTED = replace(HASTY, sleep=ctrl_c)
"""Patience that a person ends at its first pause."""


@pytest.fixture
def launcher(provisioner: Provisioner) -> Launcher:
    return Launcher(provisioner, "tree", startup_script="sleep 60")


def check_ledger(ledger: Ledger, server: ComputeServer) -> None:
    """Check that the ledger is the server's own bill, to the millisecond and to the second."""
    now, bill = time.time(), server.bill()
    stays = [stay for one in ledger.attempts for stay in one.stays]
    ends = [None if row["ended_ms"] is None else row["ended_ms"] / 1000 for row in bill]
    assert [(s.name, s.started) for s in stays] == [
        (r["name"], r["started_ms"] / 1000) for r in bill
    ]
    assert [stay.ended for stay in stays] == ends
    if None not in ends:
        assert ledger.billed_s(now) == sum(row["billed_s"] for row in bill)


def test_a_run_without_a_machine_gets_one(launcher: Launcher, server: ComputeServer) -> None:
    machine = launcher.bring_up()
    assert (machine.status, machine.zone) == ("RUNNING", "us-central1-a")
    check_ledger(launcher.ledger, server)


def test_after_a_stockout_the_machine_comes_from_the_next_zone(
    launcher: Launcher, server: ComputeServer
) -> None:
    server.world.stockouts = {("us-central1-a", True)}
    machine = launcher.bring_up()
    assert machine.zone == "us-central1-b"
    assert [one.why for one in launcher.ledger.attempts] == [STOCKOUT, "running"]
    assert len(server.world.vms) == 1


def test_after_a_full_quota_the_machine_comes_from_the_next_region(
    launcher: Launcher, server: ComputeServer
) -> None:
    server.world.quotas = {"us-central1": {"PREEMPTIBLE_NVIDIA_L4_GPUS": 0.0}}
    assert launcher.bring_up().zone == "us-east1-b"
    assert [one.zone for one in launcher.ledger.attempts] == ["us-central1-a", "us-east1-b"]


def test_a_quota_on_all_gpus_stops_at_once_with_what_to_ask_for(
    launcher: Launcher, server: ComputeServer
) -> None:
    server.world.quotas = {"global": {"GPUS_ALL_REGIONS": 0.0}}
    with pytest.raises(NoCapacity, match="ask for GPUS_ALL_REGIONS of at least 1"):
        launcher.bring_up()
    assert server.methods_called().count("insert") == 1


def test_no_room_anywhere_stops_after_bounded_tries(
    launcher: Launcher, server: ComputeServer, settings: GceSettings
) -> None:
    server.world.stockouts = {(zone, True) for zone in settings.zones}
    with pytest.raises(NoCapacity, match="no g2-standard-4 to be had at spot"):
        launcher.bring_up()
    assert server.methods_called().count("insert") == len(settings.zones) * settings.tries_per_zone
    assert launcher.settle().usd(time.time()) == 0.0


def test_a_parent_that_is_killed_again_and_again_tries_no_more_often_than_one(
    server: ComputeServer, provisioner: Provisioner, settings: GceSettings
) -> None:
    server.world.stockouts = {(zone, True) for zone in settings.zones}
    kept: list[Failure] = []

    def killed_after_the_next_refusal(failures: Sequence[Failure]) -> None:
        kept[:] = failures
        raise KeyboardInterrupt

    def parent(remember: Callable[[Sequence[Failure]], None]) -> Launcher:
        return Launcher(provisioner, "tree", failures=list(kept), remember_failures=remember)

    most = len(settings.zones) * settings.tries_per_zone
    for _ in range(most):
        with pytest.raises(KeyboardInterrupt):
            parent(killed_after_the_next_refusal).bring_up()
    last = parent(lambda failures: kept.__setitem__(slice(None), failures))
    with pytest.raises(NoCapacity):
        last.bring_up()
    assert server.methods_called().count("insert") == most
    assert kept == [], "its end was told, so a person who tries again tries every place"


def test_a_zone_rests_on_after_its_parent_was_killed(
    server: ComputeServer, settings: GceSettings
) -> None:
    slow = settings.model_copy(update={"zones": ("us-central1-a",), "retry_after_s": 900.0})
    provisioner = Provisioner(slow, endpoint=server.url, patience=HASTY)
    server.world.stockouts = {("us-central1-a", True)}
    rests: list[float] = []

    def killed_while_it_rests(seconds: float) -> None:
        rests.append(seconds)
        raise KeyboardInterrupt

    first = Launcher(provisioner, "tree", sleep=killed_while_it_rests)
    with pytest.raises(KeyboardInterrupt):
        first.bring_up()
    again = Launcher(
        provisioner, "tree", failures=list(first.failures), sleep=killed_while_it_rests
    )
    with pytest.raises(KeyboardInterrupt):
        again.bring_up()
    assert server.methods_called().count("insert") == 1
    assert 800.0 < rests[1] <= rests[0] <= 900.0


def test_the_full_price_is_paid_once_spot_is_refused_everywhere(
    server: ComputeServer, settings: GceSettings
) -> None:
    dear = settings.model_copy(update={"allow_on_demand": True, "tries_per_zone": 1})
    launcher = Launcher(Provisioner(dear, endpoint=server.url, patience=HASTY), "tree")
    server.world.stockouts = {(zone, True) for zone in settings.zones}
    machine = launcher.bring_up()
    assert not machine.spot
    (paid,) = [one for one in launcher.ledger.attempts if one.stays]
    assert paid.price.machine_usd_per_hour == pytest.approx(0.7068)


# --- what the run already has


def test_a_running_machine_of_the_run_is_used_again(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    restarted = Launcher(provisioner, "tree", ledger=launcher.ledger)
    assert restarted.bring_up() == first
    assert server.methods_called().count("insert") == 1


def test_a_machine_that_the_ledger_never_heard_of_is_adopted_and_paid(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    provisioner.launch(order())
    assert launcher.bring_up().name == machine_name("tree", 1, "symbio")
    check_ledger(launcher.ledger, server)


def test_a_machine_that_the_ledger_took_for_refused_is_paid_when_it_is_found(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    [attempt] = launcher.ledger.attempts
    unheard = Ledger(attempts=(attempt.model_copy(update={"stays": ()}),))
    mistaken = unheard.refused(first.name, "STOCKOUT")
    assert mistaken.usd(time.time() + 3600.0) == 0.0
    again = Launcher(provisioner, "tree", ledger=mistaken)
    assert again.bring_up() == first
    assert again.ledger.usd(time.time() + 3600.0) > 0.0
    check_ledger(again.ledger, server)


def test_a_stopped_machine_of_the_run_is_started_again(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    provisioner.stop(first)
    again = launcher.bring_up()
    assert (again.name, again.status) == (first.name, "RUNNING")
    assert len(launcher.ledger.attempts) == 1
    check_ledger(launcher.ledger, server)


def test_a_stopped_machine_whose_zone_is_full_is_replaced_elsewhere(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    provisioner.stop(first)
    server.world.stockouts = {(first.zone, True)}
    again = launcher.bring_up()
    assert again.zone == "us-central1-b"
    assert [vm.name for vm in server.world.vms.values()] == [again.name]
    check_ledger(launcher.ledger, server)


def test_a_stopped_machine_is_not_started_where_the_cap_is_spent(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    provisioner.stop(launcher.bring_up())
    launcher.cap_usd = launcher.settle().usd(time.time())
    with pytest.raises(PriceCapReached, match="rest pays for no further machine"):
        launcher.bring_up()
    assert "start" not in server.methods_called()
    assert server.world.vms == {}
    check_ledger(launcher.ledger, server)


def test_a_stopped_machine_that_may_outlast_the_money_is_replaced_by_one_that_may_not(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    assert first.max_run_s == 24 * 3600
    provisioner.stop(first)
    launcher.cap_usd = 0.2818 + 100 * 0.10 / 730
    again = launcher.bring_up()
    assert again.name != first.name
    assert again.max_run_s is not None
    assert again.max_run_s < 3600
    assert [vm.name for vm in server.world.vms.values()] == [again.name]


def test_a_machine_that_runs_other_code_is_replaced(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    launcher.metadata = {"symbio-code": "1" * 64, "symbio-prefect-url": "http://10.0.0.2/api"}
    first = launcher.bring_up()
    assert launcher.bring_up() == first
    for told in ({"symbio-code": "2" * 64}, {"symbio-prefect-url": "http://10.0.0.3/api"}):
        launcher.metadata |= told
        again = launcher.bring_up()
        assert [vm.name for vm in server.world.vms.values()] == [again.name]
        assert again.attributes.items() >= launcher.metadata.items()
    assert len(launcher.ledger.attempts) == 3
    assert launcher.failures == [], "it is no fault of the place"
    assert server.world.most_alive == 1


def test_a_machine_that_stopped_in_a_way_nobody_knew_costs_nothing_since(
    launcher: Launcher, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    world = server.world
    with world.lock:
        vm = world.vm(first.zone, first.name)
        operation = world.operation("system", first.zone, "compute.instances.unheardOf", vm)
        world._press_button(vm, operation, "stop", "unheardOf")
    until(lambda: vm.status == "TERMINATED")
    check_ledger(launcher.settle(), server)
    assert launcher.ledger.billed_s(time.time() + 36_000.0) == 60
    launcher.remove_all()
    assert launcher.ledger.attempts[0].is_over


def test_a_machine_on_its_way_is_waited_for(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    server.world.timings.stage_s = 0.3
    asked = order()
    server.fail("operation", "stall:0.01")
    with pytest.raises(KeyboardInterrupt):
        Provisioner(provisioner.settings, endpoint=server.url, patience=INTERRUPTED).launch(asked)
    assert launcher.bring_up().name == asked.name
    assert server.world.most_alive == 1


def test_a_run_with_two_machines_keeps_one(
    launcher: Launcher, provisioner: Provisioner, server: ComputeServer
) -> None:
    first = provisioner.launch(order(number=1))
    provisioner.launch(order(number=2, zone="us-east1-b"))
    assert launcher.bring_up() == first
    assert [vm.name for vm in server.world.vms.values()] == [first.name]


def test_a_doomed_machine_is_gone_before_the_next_one_comes(
    launcher: Launcher, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    launcher.lost(first, PREEMPTED)
    second = launcher.bring_up(doomed=[first.name])
    assert second.zone == "us-central1-b"
    assert server.world.most_alive == 1
    check_ledger(launcher.settle(), server)


def test_a_preempted_machine_is_waited_out_and_replaced_elsewhere(
    launcher: Launcher, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    server.world.timings.scale = 0.0
    server.world.preempt(first.zone, first.name)
    until(lambda: server.world.vms[first.zone, first.name].status == "STOPPING")
    # The next one lives as long as its order says.
    server.world.timings.scale = 1.0
    launcher.lost(first, PREEMPTED)
    second = launcher.bring_up()
    assert (second.zone, server.world.most_alive) == ("us-central1-b", 1)
    ledger = launcher.settle()
    assert ledger.attempts[0].why == "preempted"
    check_ledger(ledger, server)


def test_a_crashed_machine_is_started_again_where_there_is_room(
    launcher: Launcher, server: ComputeServer
) -> None:
    first = launcher.bring_up()
    server.world.crash(first.zone, first.name)
    assert launcher.bring_up().name == first.name
    assert [stay.why for stay in launcher.ledger.attempts[0].stays] == ["hostError", "running"]
    check_ledger(launcher.ledger, server)


def test_a_lost_order_costs_nothing_and_a_machine_that_hung_is_removed(
    server: ComputeServer, settings: GceSettings
) -> None:
    server.world.timings.provision_s = 5.0
    hasty = replace(HASTY, operation_s=0.1)
    one_zone = settings.model_copy(update={"zones": ("us-central1-a",), "tries_per_zone": 1})
    launcher = Launcher(Provisioner(one_zone, endpoint=server.url, patience=hasty), "tree")
    with pytest.raises(NoCapacity):
        launcher.bring_up()
    until(lambda: not server.world.vms)
    assert launcher.settle().billed_s(time.time()) == 0


def test_everything_of_a_run_is_removed_at_its_end(
    launcher: Launcher, server: ComputeServer
) -> None:
    launcher.bring_up()
    launcher.remove_all()
    assert not server.world.vms
    assert all(op["status"] == "DONE" for op in server.world.operations.values())
    assert all(one.is_over for one in launcher.ledger.attempts)
    check_ledger(launcher.ledger, server)


# --- the ledger is kept before money is spent


def test_an_order_is_written_down_before_it_is_sent(
    launcher: Launcher, server: ComputeServer
) -> None:
    kept: list[tuple[int, int]] = []

    def remember(ledger: Ledger) -> None:
        kept.append((len(ledger.attempts), server.methods_called().count("insert")))

    launcher.remember = remember
    launcher.bring_up()
    assert kept[0] == (1, 0)


def test_a_zone_without_a_price_is_told_before_anything_is_ordered(
    server: ComputeServer, settings: GceSettings
) -> None:
    unpriced = settings.model_copy(update={"zones": ("us-central1-a", "us-west3-a", "us-east1-b")})
    launcher = Launcher(Provisioner(unpriced, endpoint=server.url, patience=HASTY), "tree")
    with pytest.raises(PriceUnknown, match=r"in us-west3 .*leave the region out"):
        launcher.bring_up()
    assert server.methods_called() == []


def test_a_machine_is_not_ordered_where_the_cap_leaves_no_money(
    launcher: Launcher, server: ComputeServer
) -> None:
    launcher.cap_usd = 0.01
    with pytest.raises(PriceCapReached, match=r"cap of \$0\.01.*no further machine"):
        launcher.bring_up()
    assert "insert" not in server.methods_called()


def test_the_service_itself_ends_a_machine_before_the_money_does(
    launcher: Launcher, server: ComputeServer
) -> None:
    launcher.cap_usd = 0.2818 + 100 * 0.10 / 730
    launcher.bring_up()
    (vm,) = server.world.vms.values()
    assert 3500 <= int(vm.resource["scheduling"]["maxRunDuration"]["seconds"]) <= 3540


# --- choosing is pure


def machine(status: str, created: float) -> Machine:
    return Machine(
        name=f"m-{created:g}", zone="us-central1-a", id="1", status=status,
        machine_type="g2-standard-4", spot=True, created=created,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("states", "action", "kept"),
    [
        ([], "launch", None),
        (["STOPPING"], "launch", None),
        (["TERMINATED"], "start", 0),
        (["TERMINATED", "STAGING"], "wait", 1),
        (["STAGING", "RUNNING", "RUNNING"], "use", 1),
        (["STOPPED", "STOPPING", "TERMINATED"], "start", 0),
    ],
)
def test_the_best_machine_is_kept_and_the_rest_removed(
    states: list[str], action: str, kept: int | None
) -> None:
    machines = tuple(machine(status, float(i)) for i, status in enumerate(states))
    plan = reuse(machines)
    assert plan.action == action
    assert plan.keep == (None if kept is None else machines[kept])
    leaving = [m for m in machines if m.status == "STOPPING"]
    assert {m.name for m in (*plan.remove, *leaving, *([plan.keep] if plan.keep else []))} == {
        m.name for m in machines
    }
