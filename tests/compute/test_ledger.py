"""Money: what machines cost to the second, and an end before the cap is passed."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from symbio_core.compute.ledger import SHUTDOWN_S, Ledger, MachineAttempt
from symbio_core.compute.machines import Stay
from symbio_core.compute.prices import Price

HOUR = 3600.0
PRICE = Price(
    machine_usd_per_hour=0.35, disk_usd_per_hour=0.01, spot=True, dated="2026-11-23", source="test"
)


def attempt(name: str = "m-1", *, spot: bool = True, ordered: float = 0.0) -> MachineAttempt:
    return MachineAttempt(
        name=name, zone="us-central1-a", machine_type="g2-standard-4", spot=spot, price=PRICE,
        ordered=ordered,
    )  # fmt: skip


def stay(started: float, ended: float | None, why: str = "delete", name: str = "m-1") -> Stay:
    return Stay(name=name, zone="us-central1-a", started=started, ended=ended, why=why)


def ran(*stays: Stay, over: bool = True, spot: bool = True) -> Ledger:
    return Ledger().ordered(attempt(spot=spot)).told("m-1", stays, is_over=over)


def test_an_hour_costs_its_price() -> None:
    ledger = ran(stay(1000.0, 1000.0 + HOUR))
    assert ledger.billed_s(now=1e9) == 3600
    assert ledger.usd(now=1e9) == pytest.approx(0.36)


@pytest.mark.parametrize(
    ("seconds", "billed"), [(0.0, 60), (59.9, 60), (60.0, 60), (60.001, 61), (61.0, 61)]
)
def test_seconds_are_charged_as_they_begin_and_at_least_a_minute(
    seconds: float, billed: int
) -> None:
    assert ran(stay(1_795_430_000.123, 1_795_430_000.123 + seconds)).billed_s(now=2e9) == billed


def test_each_start_of_a_machine_costs_a_minute_of_its_own() -> None:
    ledger = ran(stay(0.0, 10.0, "stop"), stay(100.0, 110.0))
    assert ledger.billed_s(now=1e9) == 120
    assert ledger.seconds(now=1e9) == pytest.approx(20.0)


def test_a_spot_machine_taken_back_in_its_first_minute_costs_nothing() -> None:
    assert ran(stay(0.0, 59.0, "preempted")).billed_s(now=1e9) == 0
    assert ran(stay(0.0, 60.0, "preempted")).billed_s(now=1e9) == 60
    assert ran(stay(0.0, 59.0, "hostError")).billed_s(now=1e9) == 60


def test_a_running_machine_costs_more_each_second() -> None:
    ledger = ran(stay(0.0, None, "running"), over=False)
    assert ledger.billed_s(now=100.0) == 100
    assert ledger.billed_s(now=200.0) == 200


def test_a_refused_machine_costs_nothing() -> None:
    ledger = Ledger().ordered(attempt()).refused("m-1", "ZONE_RESOURCE_POOL_EXHAUSTED")
    assert ledger.usd_if_ended(now=1e6) == 0.0
    assert ledger.attempts[0].why == "ZONE_RESOURCE_POOL_EXHAUSTED"


def test_a_machine_not_heard_of_yet_counts_as_running_since_its_order() -> None:
    ledger = Ledger().ordered(attempt(ordered=100.0))
    assert ledger.usd(now=1000.0) == 0.0
    assert ledger.usd_if_ended(now=1000.0, shutdown_s=0.0) == pytest.approx(900 * 0.36 / HOUR)


def test_the_ledger_survives_json() -> None:
    ledger = ran(stay(0.0, 10.0, "stop"), stay(100.0, None, "running"), over=False)
    assert Ledger.model_validate_json(ledger.model_dump_json()) == ledger


def test_without_a_cap_there_is_always_money() -> None:
    ledger = ran(stay(0.0, None, "running"), over=False)
    assert ledger.may_go_on(None, 1e9, next_look_s=60.0)
    assert ledger.seconds_left(None, 1e9, PRICE) == math.inf


def test_a_first_machine_needs_money_for_its_minute_and_its_shutdown() -> None:
    enough = (SHUTDOWN_S + 61) * PRICE.usd_per_hour / HOUR
    assert Ledger().seconds_left(enough, 0.0, PRICE) > 0.0
    assert Ledger().seconds_left(60 * PRICE.usd_per_hour / HOUR, 0.0, PRICE) <= 0.0
    assert Ledger().seconds_left(0.0, 0.0, PRICE) < 0.0


STAYS = st.lists(st.tuples(st.floats(0.0, 5000.0), st.floats(0.0, 5000.0)), max_size=4)


@given(STAYS, st.floats(0.001, 1.0), st.floats(10.0, 300.0), st.floats(0.0, 300.0))
def test_a_run_that_asks_in_time_never_passes_the_cap(
    past: list[tuple[float, float]], cap_usd: float, look_s: float, shutdown_s: float
) -> None:
    ledger, now = Ledger(), 0.0
    for number, (pause, length) in enumerate(past):
        name = f"m-{number}"
        done = stay(now + pause, now + pause + length, "hostError", name)
        ledger = ledger.ordered(attempt(name, ordered=now)).told(name, [done], is_over=True)
        now += pause + length
    assume(ledger.usd(now) <= cap_usd)
    if ledger.seconds_left(cap_usd, now, PRICE, shutdown_s=shutdown_s) <= 0.0:
        return
    ledger = ledger.ordered(attempt("last", ordered=now))
    began = now
    ledger = ledger.told("last", [stay(began, None, "running", "last")])
    while ledger.may_go_on(cap_usd, now, next_look_s=look_s, shutdown_s=shutdown_s):
        now += look_s
    ended = stay(began, now + shutdown_s, "delete", "last")
    ledger = ledger.told("last", [ended], is_over=True)
    assert ledger.usd(now + 1e6) <= cap_usd + 1e-9


@given(st.floats(0.01, 5.0), st.floats(0.0, 20_000.0), st.floats(0.0, 300.0))
def test_a_machine_that_works_for_the_seconds_left_keeps_the_cap(
    cap_usd: float, ran_s: float, shutdown_s: float
) -> None:
    ledger = ran(stay(0.0, None, "running"), over=False)
    left_s = ledger.seconds_left(cap_usd, ran_s, PRICE, shutdown_s=shutdown_s)
    assume(left_s > 0.0)
    ended = ran(stay(0.0, ran_s + left_s + shutdown_s))
    assert ended.usd(1e9) <= cap_usd + 1e-9
