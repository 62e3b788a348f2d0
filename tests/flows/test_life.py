from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun

from flows.autonomous import symbio
from symbio_core import progress, runner
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import CorpusError, Interrupted
from symbio_core.profiles import profile
from symbio_core.report import FinalReport

WALL_CLOCK = {"seconds", "tokens_per_s", "seconds_per_step", "seconds_spent", "at", "time"}


def smoke(root: Path, **changes: Any) -> RunConfig:
    return changed(profile("smoke"), {"storage.root": str(root), **changes})


def live(config: RunConfig, run_id: str | None) -> FinalReport:
    return asyncio.run(symbio(config, run_id))  # type: ignore[return-value]


async def flow_runs_named(name: str) -> list[FlowRun]:
    async with get_client() as client:
        return await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        )


async def phases_of(run: FlowRun) -> list[FlowRun]:
    async with get_client() as client:
        below = FlowRunFilterParentFlowRunId(any_=[run.id])
        return await client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=below))


async def artifact_keys(run: FlowRun) -> set[str]:
    async with get_client() as client:
        here = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        return {a.key for a in await client.read_artifacts(artifact_filter=here) if a.key}


async def events_about(run_id: str) -> list[str]:
    async with get_client() as client:
        wanted = {"filter": {"resource": {"id": [f"symbio.run.{run_id}"]}}}
        answer = await client.request("POST", "/events/filter", json=wanted)
        return [event["event"] for event in answer.json()["events"]]


def until(look: Callable[[], Coroutine[Any, Any, Any]], wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 60
    while not wanted(seen := asyncio.run(look())):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    return seen


def journal(root: Path, run_id: str) -> list[Any]:
    return [_timeless(event) for event in runner.reopen(str(root), run_id).events]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in WALL_CLOCK}
    if isinstance(value, list | tuple):
        return [_timeless(item) for item in value]
    return value


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def report(root: Path, prefect_api: None) -> FinalReport:
    return live(smoke(root), "alpha")


@pytest.mark.slow
def test_a_whole_life_ends_in_a_report_and_a_model(root: Path, report: FinalReport) -> None:
    home = root / "runs" / "alpha"
    held = json.loads((home / "report" / "final-report.json").read_text(encoding="utf-8"))
    assert held["verdict"] == report.verdict
    assert {attempt.phase for attempt in report.phases} == set(PHASES)
    assert any((home / "model").iterdir())


@pytest.mark.slow
def test_prefect_shows_the_run_by_its_name_with_a_page_a_phase(report: FinalReport) -> None:
    [run] = asyncio.run(flow_runs_named("alpha"))
    assert run.state is not None
    assert run.state.is_completed()
    shown = {phase.name for phase in asyncio.run(phases_of(run))}
    assert shown == {f"{attempt.phase} · attempt {attempt.attempt}" for attempt in report.phases}
    keys = asyncio.run(artifact_keys(run))
    assert keys >= {f"phase-{name}" for name in PHASES} | {f"verdicts-{name}" for name in PHASES}
    assert "final-report" in keys


@pytest.mark.slow
def test_automations_can_hang_on_the_events_of_a_run(report: FinalReport) -> None:
    seen = until(lambda: events_about("alpha"), lambda names: "symbio.run.completed" in names)
    kinds = [attempt.decision.kind for attempt in report.phases]
    assert seen.count("symbio.rollback") == kinds.count("rollback")
    assert seen.count("symbio.phase.repeated") == kinds.count("repeat")
    completed = len(kinds) - kinds.count("rollback") - kinds.count("repeat")
    assert seen.count("symbio.phase.completed") == completed


@pytest.mark.slow
def test_the_plain_run_and_the_flow_write_the_same_journal(
    root: Path, report: FinalReport, tmp_path: Path
) -> None:
    runner.live(runner.begin(smoke(tmp_path), "alpha"))
    text = json.dumps(journal(tmp_path, "alpha")).replace(str(tmp_path), str(root))
    assert json.loads(text) == json.loads(json.dumps(journal(root, "alpha")))


@pytest.mark.slow
def test_the_same_run_id_again_does_nothing_twice(root: Path, report: FinalReport) -> None:
    before = journal(root, "alpha")
    assert live(smoke(root), "alpha").verdict == report.verdict
    assert journal(root, "alpha") == before


@pytest.mark.slow
def test_a_stopped_run_is_cancelled_and_a_new_flow_run_goes_on(
    tmp_path: Path, root: Path, report: FinalReport
) -> None:
    def stop_in_the_second_phase(seen: progress.Progress) -> None:
        if seen.phase == PHASES[1]:
            progress.request_stop()

    unsubscribe = progress.subscribe(stop_in_the_second_phase)
    try:
        with pytest.raises(Interrupted):
            live(smoke(tmp_path), "beta")
    finally:
        unsubscribe()
        progress.clear_stop()
    [run] = asyncio.run(flow_runs_named("beta"))
    assert run.state is not None
    assert run.state.is_cancelled()
    [phase] = [p for p in asyncio.run(phases_of(run)) if p.name.startswith(PHASES[1])]
    assert phase.state is not None
    assert phase.state.is_cancelled(), phase.state
    stopped = journal(tmp_path, "beta")

    live(smoke(tmp_path), "beta")
    assert journal(tmp_path, "beta")[: len(stopped)] == stopped
    assert len(asyncio.run(flow_runs_named("beta"))) == 2


def test_a_mistake_of_the_person_fails_the_flow_in_one_line(tmp_path: Path) -> None:
    config = smoke(tmp_path, **{"data.corpus": str(tmp_path / "nowhere.txt")})
    with pytest.raises(CorpusError) as caught:
        live(config, "gamma")

    async def failed() -> list[FlowRun]:
        async with get_client() as client:
            runs = await client.read_flow_runs()
        return [run for run in runs if run.parameters.get("run_id") == "gamma"]

    [run] = asyncio.run(failed())
    assert run.state is not None
    assert run.state.is_failed()
    assert run.state.message == str(caught.value)
    assert "\n" not in str(caught.value)
