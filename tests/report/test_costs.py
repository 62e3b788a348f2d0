"""What machines cost: the report says what the ledger says, and nothing where none was rented."""

from __future__ import annotations

import json

import jsonschema
import pytest

from symbio_core.compute.ledger import Ledger, MachineAttempt
from symbio_core.compute.machines import Stay
from symbio_core.compute.prices import price
from symbio_core.config import GceSettings, changed
from symbio_core.lifecycle import fold
from symbio_core.report import json_schema, render, to_json

ZONE = "us-central1-a"
SETTINGS = GceSettings(project="my-project")


def attempt(number: int, *stays: tuple[float, float], spot: bool = True, **facts: object):
    name = f"symbio-tree-{number}"
    return MachineAttempt(
        name=name,
        zone=ZONE,
        machine_type="g2-standard-4",
        spot=spot,
        price=price(SETTINGS, ZONE, spot=spot),
        ordered=0.0,
        stays=tuple(
            Stay(name=name, zone=ZONE, started=began, ended=ended, why="preempted")
            for began, ended in stays
        ),
        is_over=True,
        **facts,
    )


LEDGER = Ledger(
    attempts=(
        attempt(1, refused="ZONE_RESOURCE_POOL_EXHAUSTED"),
        attempt(2, (100.0, 1900.25), image="projects/p/global/images/common-v20261101"),
        attempt(3, (2000.0, 2030.0), (2100.0, 5700.5), spot=False),
    )
)


@pytest.fixture
def rented(life):
    costs = tuple(one.cost(9000.0) for one in LEDGER.attempts)
    config = changed(life.config, {"budget.max_usd": 5.0})
    state = life.state.model_copy(update={"machines": costs})
    return life.report(state=state, config=config)


def test_the_reports_figures_are_the_ledgers(rented):
    cost = json.loads(to_json(rented))["cost"]
    assert cost["usd"] == LEDGER.usd(9000.0)
    assert cost["seconds"] == LEDGER.seconds(9000.0)
    assert cost["billed_s"] == LEDGER.billed_s(9000.0) == 1801 + 60 + 3601
    assert cost["cap_usd"] == 5.0
    told = [(one["name"], one["usd"], one["ended"]) for one in cost["machines"]]
    assert told == [(one.name, one.usd(9000.0), one.why) for one in LEDGER.attempts]
    jsonschema.validate(json.loads(to_json(rented)), json_schema())


def test_the_page_has_a_row_for_each_machine_and_the_sum(rented, life):
    page = render(rented, life.attempts)
    assert "What it cost" in page
    assert all(one.name in page for one in LEDGER.attempts)
    assert f"${LEDGER.usd(9000.0):.4f} of the $5.00 that were allowed" in page
    assert "ZONE_RESOURCE_POOL_EXHAUSTED" in page
    assert "made from common-v20261101." in page


def test_a_run_on_a_machine_of_ones_own_says_nothing_of_dollars(life):
    report = life.report()
    assert report.cost is None
    assert "What it cost" not in render(report, life.attempts)


def test_a_journal_from_before_images_were_kept_is_read(life):
    old = LEDGER.attempts[1].cost(0.0).model_dump(mode="json")
    del old["image"]
    [machine] = fold(life.config, [{"event": "machine", "machine": old}]).state.machines
    assert machine.image == ""


def test_the_journal_holds_the_newest_word_about_each_machine(life):
    before = LEDGER.attempts[1].model_copy(update={"stays": (), "is_over": False}).cost(0.0)
    lines = [before, *(one.cost(9000.0) for one in LEDGER.attempts)]
    events = [{"event": "machine", "machine": one.model_dump(mode="json")} for one in lines]
    state = fold(life.config, events).state
    assert {one.name: one.usd for one in state.machines} == {
        one.name: one.usd(9000.0) for one in LEDGER.attempts
    }


def test_a_run_that_the_money_ends_in_mid_phase_says_so(life):
    why = "$4.99 of the cap of $5.00 are spent"
    state = fold(life.config, [{"event": "finished", "reason": why}]).state
    assert state.finished == why
