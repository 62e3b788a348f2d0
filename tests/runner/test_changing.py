"""What may change while a run goes on: where its machines come from and what they may cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from symbio_core import lifecycle, runner
from symbio_core.config import RunConfig, changed, describe
from symbio_core.errors import ConfigError, Damaged
from symbio_core.runner.changing import OPEN, SHUT, differences
from symbio_core.runner.elsewhere import sit
from symbio_core.storage.post import Post, Turn
from tests.runner.test_turns import phase


def test_a_run_goes_on_with_more_money_and_the_journal_says_so(tiny_config: RunConfig) -> None:
    root = tiny_config.storage.root
    run = runner.open_run(changed(tiny_config, {"budget.max_usd": 5.0}), "poor")
    run.change({"budget.max_usd": 20, "compute.gce.zones": ["us-east1-b"]})
    run.change({"budget.max_usd": 20})
    run.release()
    again = runner.reopen(root, "poor")
    assert (again.config.budget.max_usd, again.config.compute.gce.zones) == (20.0, ("us-east1-b",))
    [line] = [event for event in again.events if event["event"] == "changed"]
    assert line["changes"]["budget.max_usd"] == {"from": 5.0, "to": 20.0}
    assert again.store.read_config()["budget"]["max_usd"] == 5.0, "what it began with stays known"
    assert [told for told in runner.summary(again) if "budget.max_usd from 5.0 to 20.0" in told]


def test_whoever_reopens_it_later_or_elsewhere_goes_by_the_new_settings(
    tiny_config: RunConfig,
) -> None:
    root = tiny_config.storage.root
    run = runner.open_run(tiny_config, "moved")
    behind = runner.reopen(root, "moved")
    plan = run.plan_next()
    assert plan is not None
    run.change({"compute.elsewhere.beat_s": 1.5})
    run.release()
    behind.claim()
    assert behind.config.compute.elsewhere.beat_s == 1.5
    Post(run.store, plan).give_turn(None, Turn(number=1))
    with sit(root, "moved", plan, 1) as far:
        assert far.config.compute.elsewhere.beat_s == 1.5
    behind.release()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"search.mutation": 0.5}, "'search.mutation' is None since the run began"),
        ({"budget.max_usd": 9.0, "budget.steps": 9_000}, "'budget.steps'"),
        ({"compute.gce.project": "another"}, "has to stay"),
        ({"compute.gce.zones": []}, "compute.gce.zones"),
        ({"budget.max_use": 9.0}, "unknown"),
    ],
)
def test_what_decisions_rest_on_stays(
    asked: dict[str, Any], words: str, tiny_config: RunConfig
) -> None:
    run = runner.open_run(tiny_config, "firm")
    before = run.events
    with pytest.raises(ConfigError) as caught:
        run.change(asked)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run.events == before


def test_a_finished_run_is_not_changed(tiny_config: RunConfig) -> None:
    run = runner.open_run(tiny_config, "done")
    phase(run)
    run.finish("the money is spent")
    with pytest.raises(ConfigError, match="symbio run --start-from done"):
        run.change({"budget.max_usd": 9.0})
    run.change({})


def test_no_decision_rests_on_what_may_change(tiny_config: RunConfig) -> None:
    run = runner.open_run(tiny_config, "replayed")
    phase(run)
    run.change({"budget.max_usd": 9.0, "compute.gce.spot": False})
    phase(run)
    assert lifecycle.replay(run.config, run.events) == run.state
    assert lifecycle.replay(tiny_config, run.events) == run.state
    known = [row.key for row in describe(tiny_config)]
    assert all(any(key.startswith(name) for key in known) for name in (*OPEN, *SHUT))


def test_a_change_that_was_damaged_is_told_in_one_line(tiny_config: RunConfig) -> None:
    run = runner.open_run(tiny_config, "hurt")
    run.change({"budget.max_usd": 9.0})
    run._note("changed", changes={"budget.max_usd": {"to": "much"}})
    run.release()
    with pytest.raises(Damaged, match="damaged or changed by hand"):
        runner.reopen(tiny_config.storage.root, "hurt")


def test_a_value_that_is_the_same_in_other_words_is_no_change(tiny_config: RunConfig) -> None:
    zones = json.loads(json.dumps(tiny_config.compute.gce.zones))
    assert differences(tiny_config, {"compute.gce.zones": zones, "seed": tiny_config.seed}) == {}
