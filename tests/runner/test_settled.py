"""What a final has settled stays settled: who lost it trains on nowhere, whatever comes after."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.config import RunConfig, changed
from symbio_core.runner import Run
from symbio_core.runner.confirm import confirm, fixed_functions
from symbio_core.runner.workbench import Workbench
from symbio_core.training import Member
from tests.conftest import tiny

FIXED = set(fixed_functions(gated=False).values())


@pytest.fixture(scope="module")
def lost(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A life on a sigmoid, which loses its final for sure; the shock rolls oxidation back."""
    plain = tiny(tiny_corpus, tmp_path_factory.mktemp("lost"))
    long_final = {"budget.steps": 1400, "confirm.steps_frac": 0.4, "confirm.seeds": 3}
    run = runner.open_run(
        changed(plain, {"without": ["search"], **long_final}), "lost", formula="sigmoid(x)"
    )
    runner.live(run)
    return run


def test_no_phase_after_a_lost_final_trains_the_function_that_lost(lost: Run) -> None:
    assert lost.confirmation is not None
    assert lost.confirmation.verdict == "fixed wins"
    held = next(i for i, a in enumerate(lost.attempts) if a.outcome.confirm_steps > 0)
    assert lost.attempts[held].outcome.start.formula == "sigmoid(x)"
    after = [attempt.outcome.end.formula for attempt in lost.attempts[held:]]
    assert len(after) >= 3
    assert set(after) <= FIXED
    assert lost.state.steps_spent <= lost.config.budget.steps


def test_a_checkpoint_that_the_run_goes_back_to_is_given_the_function_that_won(lost: Run) -> None:
    again = [a for a in lost.attempts if a.outcome.phase == "oxidation" and a.outcome.attempt > 1]
    assert again, "the shock of the switch did not roll oxidation back"
    for attempt in again:
        assert attempt.outcome.start.formula == "sigmoid(x)"
        assert attempt.outcome.end.formula in FIXED


def test_nothing_is_searched_that_no_final_would_test(tiny_config: RunConfig) -> None:
    # Oxidation learns nothing and is repeated, and the final is not.
    still = {"optimiser.schedule": "seed", "phases.oxidation.lr_factor": 1e-9}
    plain = {"confirm.warm_steps": 0, "without": ["fusion", "kuramoto"]}
    run = runner.open_run(changed(tiny_config, still | plain), "searched")
    runner.live(run)
    first, again = [a.outcome for a in run.attempts if a.outcome.phase == "oxidation"]
    assert first.confirm_steps > 0
    assert first.generations
    assert not again.generations


def test_a_phase_without_another_try_holds_the_final_though_it_diverged(
    tiny_config: RunConfig,
) -> None:
    spiky = {"optimiser.spike_factor": 1.001, "gates.skip_frac": 0.05, "budget.max_attempts": 1}
    run = runner.open_run(changed(tiny_config, spiky), "diverged")
    runner.live(run)
    oxidation = [a.outcome for a in run.attempts if a.outcome.phase == "oxidation"]
    assert [o.stopped for o in oxidation] == ["diverged"]
    assert oxidation[0].confirm_steps > 0
    assert run.confirmation is not None
    assert run.state.steps_spent <= run.config.budget.steps


@pytest.mark.parametrize("winner", ["gelu(x)²", "silu(x)·tanh(x)"])
def test_the_best_fixed_function_runs_again_wherever_equal_steps_are_not_equal_cost(
    tiny_config: RunConfig, winner: str
) -> None:
    bench = runner.open_run(tiny_config, "cost").bench
    taken: list[int] = []
    found = confirm(bench, winner, 200, lambda step, _loss: taken.append(step))
    own, *others = found.contenders
    best = min(others, key=lambda c: c.bpb)
    assert best.name == found.best_fixed
    steps = round(found.steps_each / best.cost)
    assert steps != found.steps_each
    assert len(best.nats_same_cost) == found.seeds
    assert found.best_fixed in {effect.against for effect in found.effects_seconds}
    assert not own.nats_same_cost
    # The races at equal cost are paid from the steps that were set aside for all.
    assert len(taken) <= 4 * 200 * found.seeds
    assert len(taken) > 4 * 200 * found.seeds * 0.7


def test_who_ends_at_no_number_counts_as_knowing_nothing(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = runner.open_run(tiny_config, "broken").bench
    born = Workbench.fresh_member

    def poisoned(self: Workbench, formula: str, *name: str | int) -> Member:
        member = born(self, formula, *name)
        if formula == "silu(x)":
            member.model.embedding.weight.data.fill_(float("nan"))
        return member

    monkeypatch.setattr(Workbench, "fresh_member", poisoned)
    found = confirm(bench, "gelu(x)²", 12, lambda _step, _loss: None)
    broken = next(c for c in found.contenders if c.formula == "silu(x)")
    assert broken.nats == pytest.approx([math.log(bench.n_vocab)] * found.seeds)
    assert found.best_fixed != broken.name
