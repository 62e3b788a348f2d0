"""A whole life in plain Python: what it leaves behind, that it repeats, that it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from symbio_core import lifecycle, runner
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import ConfigError, Interrupted, UnknownRun
from symbio_core.progress import Progress, clear_stop, request_stop, subscribe
from symbio_core.report import FinalReport, json_schema
from symbio_core.runner import Run
from symbio_core.runner.exported import WEIGHTS
from tests.conftest import tiny


@pytest.fixture(scope="module")
def lived(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, FinalReport]:
    run = runner.open_run(tiny(tiny_corpus, tmp_path_factory.mktemp("lived")), "lived")
    return run, runner.live(run)


def weights(run: Run) -> str:
    return hashlib.sha256(run.store.read_file(WEIGHTS)).hexdigest()


def decisions(run: Run) -> list[Any]:
    """Everything decided and why, without what a clock said."""
    found = []
    for attempt in run.attempts:
        found.append(
            {
                "decision": attempt.decision.model_dump(exclude={"start", "dormant"}),
                "verdicts": [v.model_dump() for v in attempt.verdicts],
                "points": [p.model_dump() for p in attempt.outcome.points],
                "samples": [s.text for s in attempt.battery.samples],
                "generations": [
                    g.model_dump(exclude={"seconds": True, "members": {"__all__": {"score"}}})
                    for g in attempt.outcome.generations
                ],
            }
        )
    return found


def test_a_life_goes_through_all_six_phases(lived: tuple[Run, FinalReport]) -> None:
    run, report = lived
    assert {attempt.outcome.phase for attempt in run.attempts} == set(PHASES)
    assert run.is_finished
    assert report.verdict


def test_the_budget_is_never_passed(lived: tuple[Run, FinalReport]) -> None:
    run, report = lived
    assert run.state.steps_spent == sum(a.outcome.steps for a in run.attempts)
    assert run.state.steps_spent <= run.config.budget.steps
    assert report.totals.steps.total == run.state.steps_spent


def test_each_search_phase_buys_a_generation(lived: tuple[Run, FinalReport]) -> None:
    run, _ = lived
    for attempt in run.attempts:
        bought = len(attempt.outcome.generations)
        if run.config.phase(attempt.outcome.phase).population and attempt.outcome.attempt == 1:
            assert bought >= 1, attempt.outcome.phase
        for generation in attempt.outcome.generations:
            formulas = [m.candidate.formula for m in generation.members]
            assert len(set(formulas)) == len(formulas)
            assert all(0.0 <= r <= 1.0 for r in generation.sync)


def test_the_confirmation_pits_the_winner_against_the_fixed_functions(
    lived: tuple[Run, FinalReport],
) -> None:
    confirmation = lived[0].confirmation
    assert confirmation is not None
    assert {c.formula for c in confirmation.contenders} >= {"gelu(x)", "silu(x)", "relu(x)²"}
    assert confirmation.seeds == lived[0].config.confirm.seeds
    assert all(0.0 <= effect.p_value <= 1.0 for effect in confirmation.effects)


def test_training_helped(lived: tuple[Run, FinalReport]) -> None:
    run, report = lived
    assert report.shipped.val_bpb is not None
    assert report.shipped.val_bpb < 0.7 * run.attempts[0].outcome.start.val_bpb


def test_the_report_follows_its_schema(lived: tuple[Run, FinalReport]) -> None:
    run, _ = lived
    content = json.loads(run.store.read_file("report/final-report.json"))
    jsonschema.validate(content, json_schema())
    page = run.store.read_file("report/report.html").decode()
    assert content["verdict"].split()[0] in page


def test_metrics_are_tables(lived: tuple[Run, FinalReport]) -> None:
    run, _ = lived
    evaluations = run.store.read_metrics("evaluations")
    assert list(evaluations["step"]) == sorted(evaluations["step"])
    assert len(run.store.read_metrics("candidates")) == sum(len(g.members) for g in run.generations)


def test_replaying_the_journal_decides_the_same(lived: tuple[Run, FinalReport]) -> None:
    run, _ = lived
    assert lifecycle.replay(run.config, run.events) == run.state


def test_the_exported_model_writes_and_is_the_one_that_was_measured(
    lived: tuple[Run, FinalReport],
) -> None:
    run, report = lived
    root = run.config.storage.root
    one, two = (
        runner.sample(root, "lived", "the river", temperature=0.7, tokens=20, count=2, seed=3)
        for _ in range(2)
    )
    assert one == two
    assert len(set(one)) == 2
    rows = {row.name: row.value for row in runner.evaluate(root, "lived")}
    assert rows["validation loss (bits a byte)"].value == pytest.approx(
        report.shipped.val_bpb, rel=1e-6
    )


def test_the_same_seed_gives_the_same_life(
    lived: tuple[Run, FinalReport], tiny_corpus: Path, tmp_path: Path
) -> None:
    again = runner.open_run(tiny(tiny_corpus, tmp_path), "again")
    runner.live(again)
    assert decisions(again) == decisions(lived[0])
    assert weights(again) == weights(lived[0])


def stop_at(when: Callable[[Progress], bool]) -> Callable[[], None]:
    def listen(report: Progress) -> None:
        if when(report):
            request_stop()

    return subscribe(listen)


@pytest.mark.parametrize(
    ("activity", "step"),
    [("training", 12), ("searching", 70), ("training", 300), ("confirming", 0)],
)
def test_a_stopped_life_goes_on_to_the_same_end(
    lived: tuple[Run, FinalReport], tiny_corpus: Path, tmp_path: Path, activity: str, step: int
) -> None:
    config = tiny(tiny_corpus, tmp_path)
    unsubscribe = stop_at(lambda p: p.activity == activity and p.step >= step)
    with pytest.raises(Interrupted):
        runner.live(runner.open_run(config, "stopped"))
    unsubscribe()
    clear_stop()
    resumed = runner.reopen(config.storage.root, "stopped")
    assert not resumed.is_finished
    runner.live(resumed)
    assert decisions(resumed) == decisions(lived[0])
    assert weights(resumed) == weights(lived[0])


@pytest.mark.parametrize("moves", [1, 2, 3, 7])
def test_a_new_process_goes_on_at_any_move(
    lived: tuple[Run, FinalReport], tiny_corpus: Path, tmp_path: Path, moves: int
) -> None:
    config = tiny(tiny_corpus, tmp_path)
    run = runner.open_run(config, "moved")
    for _ in range(moves):
        plan = run.plan_next()
        assert plan is not None
        run = runner.reopen(config.storage.root, "moved")
        run.train(plan)
        run = runner.reopen(config.storage.root, "moved")
        run.write_battery(plan)
        run = runner.reopen(config.storage.root, "moved")
        verdicts = (
            *run.judge_battery(plan),
            *run.judge_overfitting(plan),
            *run.judge_plateau(plan),
        )
        run.decide(plan, verdicts)
        run = runner.reopen(config.storage.root, "moved")
        if run.state.finished:
            break
    mine = decisions(run)
    assert mine == decisions(lived[0])[: len(mine)]


def test_a_run_starts_from_the_best_of_another(
    lived: tuple[Run, FinalReport],
) -> None:
    elder, _ = lived
    config: RunConfig = changed(elder.config, {"start_from": "latest", "seed": 5})
    child = runner.open_run(config, "child")
    assert child.config.start_from == "lived"
    plan = child.plan_next()
    assert plan is not None
    outcome = child.train(plan)
    assert elder.state.best is not None
    assert outcome.start.formula == elder.state.best.formula
    assert outcome.start.val_bpb < 0.8 * elder.attempts[0].outcome.start.val_bpb


def test_an_elder_of_another_shape_is_refused(lived: tuple[Run, FinalReport]) -> None:
    config = changed(lived[0].config, {"start_from": "lived", "model.n_layer": 1})
    with pytest.raises(ConfigError, match="another shape"):
        runner.open_run(config, "misfit")


def test_the_first_run_of_a_schedule_has_no_elder(tiny_config: RunConfig) -> None:
    run = runner.open_run(changed(tiny_config, {"start_from": "latest"}), "first")
    assert run.config.start_from is None


def test_a_cap_on_seconds_ends_the_run_well(tiny_config: RunConfig) -> None:
    run = runner.open_run(changed(tiny_config, {"budget.max_seconds": 0.5}), "capped")
    report = runner.live(run)
    assert "seconds" in report.finished
    assert run.store.has_file(WEIGHTS)
    assert report.confirmation is None
    assert report.no_confirmation


def test_a_learning_rate_out_of_all_bounds_is_called_divergence(tiny_config: RunConfig) -> None:
    wild = {
        "optimiser.peak_lr": 1.0,
        "optimiser.clip_norm": 1e6,
        "optimiser.spike_factor": 1.05,
        "phases.abiogenesis.share": 0.4,
        "budget.steps": 1200,
    }
    run = runner.open_run(changed(tiny_config, wild), "wild")
    plan = run.plan_next()
    assert plan is not None
    first = run.train(plan)
    assert first.stopped == "diverged"
    assert first.steps < plan.steps, "it is seen during the phase, not after"
    run.write_battery(plan)
    verdicts = (*run.judge_battery(plan), *run.judge_overfitting(plan), *run.judge_plateau(plan))
    decision = run.decide(plan, verdicts)
    assert (decision.kind, decision.rule) == ("repeat", "diverged")
    assert decision.start == first.start.id
    assert run.state.lr_scale == 0.5


def test_a_run_that_died_between_its_first_two_writes_goes_on(
    lived: tuple[Run, FinalReport], tiny_corpus: Path, tmp_path: Path
) -> None:
    config = tiny(tiny_corpus, tmp_path)
    run = runner.open_run(config, "newborn")
    *_, started = sorted((tmp_path / "runs" / "newborn" / "journal").iterdir())
    assert '"started"' in started.read_text()
    started.unlink()
    again = runner.reopen(config.storage.root, "newborn")
    assert not again.is_open
    assert again.plan_next() is not None
    assert again.is_open
    assert run.run_id == again.run_id


def test_a_storage_folder_can_be_moved(tiny_config: RunConfig, tmp_path: Path) -> None:
    runner.open_run(tiny_config, "moved")
    Path(tiny_config.storage.root).rename(tmp_path / "elsewhere")
    run = runner.reopen(str(tmp_path / "elsewhere"), "moved")
    plan = run.plan_next()
    assert plan is not None
    run.train(plan)
    assert not Path(tiny_config.storage.root).exists()


def test_a_report_before_the_first_phase_is_refused_in_one_line(tiny_config: RunConfig) -> None:
    run = runner.open_run(tiny_config, "young")
    with pytest.raises(UnknownRun, match="symbio resume young"):
        run.report()


def test_a_damaged_step_checkpoint_is_told_and_costs_no_more_than_its_steps(
    lived: tuple[Run, FinalReport], tiny_corpus: Path, tmp_path: Path
) -> None:
    config = changed(tiny(tiny_corpus, tmp_path), {"storage.save_every": 10})
    unsubscribe = stop_at(lambda p: p.activity == "training" and p.step >= 20)
    with pytest.raises(Interrupted):
        runner.live(runner.open_run(config, "damaged"))
    unsubscribe()
    clear_stop()
    newest = runner.reopen(str(tmp_path), "damaged").store.checkpoints.newest_whole("step")
    assert newest.manifest is not None
    blob = newest.manifest.parts["member"].sha256
    path = next(tmp_path.rglob(blob))
    path.write_bytes(path.read_bytes()[:-7])
    run = runner.reopen(str(tmp_path), "damaged")
    plan = run.plan_next()
    assert plan is not None
    outcome = run.train(plan)
    assert any(blob in str(event.get("message")) for event in run.events)
    # Progress is told a few times a second, so the stop may come in any later phase.
    same = [
        a for a in lived[0].attempts if (a.plan.phase, a.plan.attempt) == (plan.phase, plan.attempt)
    ]
    assert outcome.end.val_nats == same[0].outcome.end.val_nats
