"""Hours and dollars before the start, and what they are based on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from symbio_core import runner
from symbio_core.cli.app import app
from symbio_core.compute.estimate import assumed_speed, estimate, speed_like, told_speed
from symbio_core.config import RunConfig, changed
from symbio_core.errors import ConfigError, UnknownRun
from symbio_core.profiles import demo, l4
from symbio_core.runner.estimating import estimate_run
from tests.conftest import tiny
from tests.runner.test_turns import phase


def test_hours_and_dollars_follow_from_speed_and_price() -> None:
    config = changed(l4(), {"compute.gce.spot": False, "compute.gce.zones": ["us-central1-a"]})
    found = estimate(config, told_speed(100_000.0))
    assert found.tokens == 50_000 * 20 * 512
    assert found.work_hours == pytest.approx(found.tokens / 100_000 / 3600)
    (place,) = found.places
    assert place.hours == pytest.approx(found.work_hours + 300 / 3600)
    assert place.usd == pytest.approx(place.hours * (0.7068 + 100 * 0.10 / 730))


def test_an_assumed_speed_says_that_nothing_was_measured() -> None:
    speed = assumed_speed(l4())
    assert not speed.is_measured
    assert "NVIDIA L4" in speed.based_on
    assert "nothing was measured" in speed.based_on
    assert 20_000 < speed.tokens_per_s < 2_000_000


def test_a_measured_speed_is_scaled_to_the_other_model() -> None:
    own = l4()
    deeper = changed(own, {"model.n_layer": 16})
    assert speed_like(own, own, 1000.0, "run a").tokens_per_s == 1000.0
    slower = speed_like(deeper, own, 1000.0, "run a")
    expected = own.model.work(8192) / deeper.model.work(8192)
    assert slower.tokens_per_s == pytest.approx(1000.0 * expected)
    assert "scaled by" in slower.based_on


def test_spot_counts_the_machines_that_are_taken_back() -> None:
    found = estimate(changed(l4(), {"compute.gce.allow_on_demand": True}), told_speed(5_000.0))
    by_price = {(place.region, place.spot): place for place in found.places}
    spot, full = by_price["us-central1", True], by_price["us-central1", False]
    assert spot.hours > full.hours
    assert spot.usd is not None
    assert full.usd is not None
    assert spot.usd < full.usd
    assert [place.usd for place in found.places] == sorted(place.usd for place in found.places)


def test_a_region_without_a_price_is_told_and_comes_last() -> None:
    config = changed(l4(), {"compute.gce.zones": ["me-west1-b", "us-east1-b"]})
    found = estimate(config, told_speed(100_000.0))
    assert [place.region for place in found.places] == ["us-east1", "me-west1"]
    assert found.places[1].usd is None
    assert "compute.gce.usd_per_hour" in found.places[1].trouble


def test_a_cap_on_seconds_ends_the_estimate_too() -> None:
    found = estimate(demo(), told_speed(10.0))
    assert found.work_hours == pytest.approx(270.0 / 3600.0)
    assert any("max_seconds" in note for note in found.notes)


@settings(max_examples=40)
@given(st.integers(1, 10**7), st.integers(1, 10**7), st.floats(1.0, 1e7))
def test_more_steps_never_cost_less(one: int, other: int, rate: float) -> None:
    few, many = sorted([one, other])
    costs = []
    for steps in (few, many):
        config = changed(l4(), {"budget.steps": steps})
        costs.append(estimate(config, told_speed(rate)).places[0].usd or 0.0)
    assert costs[0] <= costs[1] * (1 + 1e-12)


@pytest.fixture(scope="module")
def finished(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that has lived through its first phase."""
    config = tiny(tiny_corpus, tmp_path_factory.mktemp("estimate") / "storage")
    run = runner.open_run(config, "measured")
    phase(run)
    return config


def test_an_earlier_run_gives_its_own_speed(finished: RunConfig) -> None:
    found = estimate_run(finished, like="measured")
    assert found.speed.is_measured
    assert "run measured" in found.speed.based_on


def test_a_run_that_is_not_there_is_refused(finished: RunConfig) -> None:
    with pytest.raises(UnknownRun, match="measured"):
        estimate_run(finished, like="measure")
    with pytest.raises(ConfigError, match="leave one of them out"):
        estimate_run(finished, like="measured", tokens_per_s=1.0)


# --- the command


def test_the_command_prints_hours_dollars_and_what_they_rest_on() -> None:
    asked = ["estimate", "--profile", "l4", "--budget", "50000", "--max-cost", "0.01"]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert done.output.startswith("50,000 steps, 512 M tokens on g2-standard-4: ")
    assert "over $0.01" in done.output
    assert "speed: an assumption" in done.output


def test_the_command_gives_its_figures_as_json() -> None:
    asked = ["estimate", "--tokens-per-s", "1000", "--json", "--set", "compute.gce.spot=false"]
    done = CliRunner().invoke(app, asked)
    data = json.loads(done.output)
    assert data["speed"]["tokens_per_s"] == 1000.0
    assert all(not place["spot"] for place in data["places"])
