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
from symbio_core.records import MachineCost
from symbio_core.runner.estimating import estimate_run
from tests.cloud.storage_server import StorageServer
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


def on_machine(config: RunConfig, run_id: str, machine_type: str) -> None:
    """Live a run through one phase as if on a cloud machine, and finish it."""
    run = runner.open_run(config, run_id)
    phase(run)
    paid = MachineCost(
        name=f"symbio-{run_id}-1", zone="us-central1-a", machine_type=machine_type, spot=True,
        seconds=90.0, billed_s=90, usd=0.01, usd_per_hour=0.3, price_note="", ended="delete",
        is_over=True,
    )  # fmt: skip
    run._note("machine", machine=paid)
    run.finish("enough was seen")


def test_the_newest_finished_run_on_such_a_machine_gives_the_speed(
    tiny_config: RunConfig,
) -> None:
    assert not estimate_run(tiny_config).speed.is_measured, "there is none yet"
    on_machine(tiny_config, "first", "g2-standard-4")
    on_machine(tiny_config, "second", "g2-standard-4")
    on_machine(tiny_config, "third", "a2-highgpu-1g")
    runner.open_run(tiny_config, "fourth").release()
    found = estimate_run(tiny_config).speed
    assert found.is_measured
    assert "run second on g2-standard-4" in found.based_on
    assert found == estimate_run(tiny_config, like="second").speed
    other = changed(tiny_config, {"compute.gce.machine_type": "a3-highgpu-1g"})
    assert "nothing was measured" in estimate_run(other).speed.based_on


def test_what_ran_on_no_cloud_machine_says_nothing_of_one(finished: RunConfig) -> None:
    assert not estimate_run(finished).speed.is_measured


def test_a_storage_out_of_reach_leaves_an_assumption_that_says_so() -> None:
    with StorageServer() as bucket, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        found = estimate_run(changed(l4(), {"storage.root": "gs://nowhere/runs"}))
    assert not found.speed.is_measured
    assert "gs://nowhere" in found.speed.based_on
    assert "could not be looked at" in found.speed.based_on


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
