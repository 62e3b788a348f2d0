"""A phase that is seen to go wrong answers at once: the rest of it runs under other numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from symbio_core import lifecycle, runner
from symbio_core.benches.detectors.lives import Life, tiny, tried
from symbio_core.benches.detectors.plants import ALONE, GROWN, SHORT, one_generation
from symbio_core.config import RunConfig, changed
from symbio_core.errors import Damaged, Interrupted
from symbio_core.profiles import smoke
from symbio_core.progress import Progress, clear_stop, request_stop, subscribe
from symbio_core.records import Attempt
from symbio_core.report import niche
from symbio_core.runner import Run
from symbio_core.runner.generation import Gather, Population, Setting
from symbio_core.runner.living import judge
from symbio_core.runner.workbench import Workbench
from symbio_core.search import SearchState
from symbio_core.training import Member

CLOTHES = ("2·gelu(x)", "gelu(x)+0.01·x", "0.5·gelu(x)+0.01·x²", "gelu(x)+0.02·relu(x)")
UNLIKE = ("silu(x)", "sin(x)", "tanh(x)", "relu(x)")
COLLAPSE, MISMATCH = "population collapse", "learning-rate mismatch"
PATIENT = SHORT | {"search.patience": 9, "search.exploration_frac": 1.0}


def small(root: Path, **changes: object) -> RunConfig:
    return tiny(changed(smoke(), {"storage.root": str(root)}), PATIENT | changes)


def collapsing(settings: list[Setting]) -> Gather:
    """Bring together equal functions first, and unlike ones in later generations."""

    def gather(bench: Workbench, line: Member, state: SearchState, setting: Setting) -> Population:
        settings.append(setting)
        formulas = UNLIKE if state.generations else CLOTHES
        return tried(*formulas)(bench, line, state, setting)

    return gather


def test_a_second_generation_runs_under_what_the_first_has_taught(tmp_path: Path) -> None:
    life, seen = Life(small(tmp_path), tmp_path), list[Setting]()
    life.phase("abiogenesis", GROWN)
    one_generation(life, collapsing(seen), of=2)
    outcome = life.outcomes[-1]
    assert [r.verdict.name for r in outcome.responses] == [COLLAPSE]
    moved = {c.setting: (c.before, c.after) for c in outcome.responses[0].applied}
    assert moved["mutation_scale"] == (1.0, 1.5)
    first, second = seen
    assert first.settings == life.config.phase("cambrian")
    assert second.settings.mutation == pytest.approx(1.5 * first.settings.mutation)
    assert second.settings.coupling == pytest.approx(0.5 * first.settings.coupling)
    assert second.adaptation.immigrants == pytest.approx(first.adaptation.immigrants + 0.2)
    late = {v.name: v for v in life.judged()}
    assert late[COLLAPSE].passed, "the second generation is diverse"


def test_what_happens_again_after_its_answer_is_answered_again(tmp_path: Path) -> None:
    life = Life(small(tmp_path), tmp_path)
    life.phase("abiogenesis", GROWN)
    one_generation(life, tried(*CLOTHES), of=2)
    outcome = life.outcomes[-1]
    assert [r.generations for r in outcome.responses] == [1]
    late = {v.name: v for v in life.judged()}
    assert (late[COLLAPSE].passed, late[COLLAPSE].answered) == (False, False)


def test_an_answer_that_no_generation_would_feel_is_left_to_the_next_phase(tmp_path: Path) -> None:
    life = Life(small(tmp_path), tmp_path)
    life.phase("abiogenesis", GROWN)
    one_generation(life, tried(*CLOTHES))
    assert life.outcomes[-1].responses == ()
    late = {v.name: v for v in life.judged()}
    assert (late[COLLAPSE].passed, late[COLLAPSE].answered) == (False, False)


def test_a_line_that_a_wild_rate_spoils_is_probed_at_once_and_goes_on_at_less(
    tmp_path: Path,
) -> None:
    life = Life(small(tmp_path, **ALONE, **{"gates.eval_batches": 48}), tmp_path)
    life.phase("abiogenesis", GROWN)
    outcome = life.phase("primordial", 240, lr_scale=30.0)
    (response, *_) = outcome.responses
    assert response.verdict.name == MISMATCH
    assert response.line_steps < 200
    rates = [p.lr_factor for p in outcome.points]
    assert rates[0] == pytest.approx(30.0)
    assert rates[-1] == pytest.approx(30.0 * outcome.responses[-1].applied[0].after)
    assert rates[-1] <= 15.0


# --- a whole run


def lived(run: Run, gather: Gather) -> Attempt:
    """Live up to the end of cambrian, whose generations ``gather`` brings together."""
    while True:
        plan = run.plan_next()
        assert plan is not None
        if plan.phase == "cambrian":
            run.train(plan, gather=gather)
        else:
            run.train(plan)
        judge(run, plan)
        if plan.phase == "cambrian":
            return run.attempts[-1]


def run_settings(root: Path) -> RunConfig:
    without = {"without": ("final", "fusion", "kuramoto"), "budget.steps": 700}
    shares = {"phases.primordial.population": 0, "phases.cambrian.share": 0.5}
    return small(root, **without, **shares, **{"gates.n_prompts": 4, "storage.save_every": 1})


def first_alike(bench: Workbench, line: Member, state: SearchState, setting: Setting) -> Population:
    return collapsing([])(bench, line, state, setting)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Attempt]:
    run = runner.open_run(run_settings(tmp_path_factory.mktemp("whole")), "whole")
    return run, lived(run, first_alike)


def test_the_journal_replays_with_answers_and_the_decision_does_not_repeat_them(
    whole: tuple[Run, Attempt],
) -> None:
    run, attempt = whole
    (response,) = attempt.outcome.responses
    assert response.verdict.name == COLLAPSE
    assert lifecycle.replay(run.config, run.events) == run.state
    assert COLLAPSE not in {c.cause for c in attempt.decision.applied}
    eased = {c.setting: c for c in attempt.decision.applied if c.cause == "relaxation"}
    assert (eased["mutation_scale"].before, eased["mutation_scale"].after) == (1.5, 1.25)


def test_a_journal_whose_answer_was_changed_by_hand_is_found_out(
    whole: tuple[Run, Attempt],
) -> None:
    run, _ = whole
    events = [dict(event) for event in run.events]
    (trained,) = [e for e in events if e["event"] == "trained" and e["outcome"]["responses"]]
    (response,) = trained["outcome"]["responses"]
    first, *rest = response["applied"]
    forged = response | {"applied": [first | {"after": 0.7}, *rest]}
    trained["outcome"] = trained["outcome"] | {"responses": [forged]}
    with pytest.raises(Damaged, match="population collapse"):
        lifecycle.replay(run.config, events)


def test_the_report_tells_what_was_moved_in_the_midst_of_a_phase(
    whole: tuple[Run, Attempt],
) -> None:
    run, attempt = whole
    (response,) = attempt.outcome.responses
    told = [c for c in niche.changes(run.config, run.attempts) if c.step is not None]
    assert [c.change for c in told] == list(response.applied)
    mutation = next(c for c in told if c.change.setting == "mutation_scale")
    own = run.config.phase("cambrian").mutation
    (felt, *_) = mutation.effects
    assert (felt.phase, felt.before, felt.after) == ("cambrian", own, pytest.approx(1.5 * own))
    assert mutation.seen is not None
    assert f"cambrian, at its step {response.line_steps}" in niche.trail(told)


def test_a_phase_that_was_stopped_after_its_answer_goes_on_to_the_same_bits(
    whole: tuple[Run, Attempt], tmp_path: Path
) -> None:
    def listen(report: Progress) -> None:
        if report.activity == "note" and COLLAPSE in report.message:
            request_stop()

    config = run_settings(tmp_path)
    unsubscribe = subscribe(listen)
    with pytest.raises(Interrupted):
        lived(runner.open_run(config, "stopped"), first_alike)
    unsubscribe()
    clear_stop()
    again = lived(runner.reopen(config.storage.root, "stopped"), first_alike)
    expected = whole[1].outcome
    assert again.outcome.responses == expected.responses
    assert again.outcome.points == expected.points
    assert again.outcome.end.val_nats == expected.end.val_nats
    assert again.verdicts == whole[1].verdicts
