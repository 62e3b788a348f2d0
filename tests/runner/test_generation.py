"""Generations on real weights: fresh and warm, fused and not, priced, dealt out at random."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from symbio_core import runner
from symbio_core.activations import distance, parse
from symbio_core.benches.detectors.lives import tried
from symbio_core.config import RunConfig, changed
from symbio_core.lifecycle import effective, generation_price
from symbio_core.records import Adaptation, Candidate, Generation, PhasePlan
from symbio_core.runner.coupling import Coupling
from symbio_core.runner.generation import (
    Population,
    Setting,
    _winner,
    plan_rungs,
    run_generation,
)
from symbio_core.runner.workbench import Workbench
from symbio_core.search import Proposal, SearchState, initial_state
from symbio_core.training import Consensus, Member


@pytest.fixture
def bench(tiny_config: RunConfig) -> Workbench:
    return runner.open_run(tiny_config, "generations").bench


def line_of(bench: Workbench, steps: int = 20) -> Member:
    member = bench.fresh_member("gelu(x)", "line")
    member.train(steps, bench.train_batches("line"), lambda _: 1.0)
    return member


def setting_of(bench: Workbench, phase: str, **adaptation: float) -> Setting:
    plan = PhasePlan.model_validate(
        {
            "phase": phase,
            "attempt": 1,
            "start": None,
            "steps": 400,
            "begin": 0.2,
            "end": 0.4,
            "adaptation": adaptation,
        }
    )
    settings = effective(bench.config, phase, plan.adaptation)
    rungs = plan_rungs(bench, settings, settings.population)
    return Setting(plan, settings, settings.population, rungs, lr=0.5, inside=0.1)


def found(
    bench: Workbench, line: Member, phase: str, **adaptation: float
) -> tuple[Generation, Member, SearchState]:
    setting = setting_of(bench, phase, **adaptation)
    state = initial_state(line.formula)
    return run_generation(bench, line, state, setting, lambda _step, _loss: None)


def switched(bench: Workbench, **changes: object) -> Workbench:
    bench.config = changed(bench.config, changes)
    return bench


def same(one: Member, other: Member) -> bool:
    mine, theirs = one.arrays(), other.arrays()
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k]) for k in mine)


def test_a_fresh_generation_leaves_the_line_as_it_is_and_keeps_none_of_its_steps(
    bench: Workbench,
) -> None:
    line = line_of(bench)
    before = line.fork()
    generation, after, state = found(bench, line, "primordial")
    assert generation.start == "fresh"
    assert generation.steps_kept == 0
    assert state.generations == 1
    if not generation.found:
        assert same(after, before)
    assert all(m.score is not None for m in generation.members)


def test_a_generation_tells_how_many_different_functions_it_holds(bench: Workbench) -> None:
    generation, *_ = found(bench, line_of(bench, 1), "cambrian")
    assert generation.entropy_nats is not None
    assert 1.0 < np.exp(generation.entropy_nats) < len(generation.members)
    trees = [parse(m.candidate.formula) for m in generation.members]
    alike = np.array([[1.0 - distance(a, b) for b in trees] for a in trees])
    ordinary = alike.mean(axis=1)
    assert np.exp(generation.entropy_nats) == pytest.approx(np.exp(-np.log(ordinary).mean()))


def test_what_a_generation_costs_is_what_was_set_aside_for_it(bench: Workbench) -> None:
    for phase in ("primordial", "cambrian", "oxidation"):
        setting = setting_of(bench, phase)
        price = generation_price(bench.config, setting.settings, setting.population)
        generation, *_ = found(bench, line_of(bench), phase)
        assert 0.6 * price <= generation.steps <= price


def test_steps_of_a_smaller_model_are_counted_by_their_cost(bench: Workbench) -> None:
    small = bench.reduced(0.5)
    assert 0.0 < small.cost < 1.0
    assert small.charged(1000) == pytest.approx(1000 * small.cost, abs=1.0)
    weights = {n: p.numel() for n, p in small.fresh_member("gelu(x)", "a").model.named_parameters()}
    whole = {n: p.numel() for n, p in bench.fresh_member("gelu(x)", "a").model.named_parameters()}
    assert sum(weights.values()) < sum(whole.values())
    assert bench.cost == 1.0


def test_a_warm_generation_carries_the_line_forward(bench: Workbench) -> None:
    line = line_of(bench)
    generation, after, _ = found(bench, line, "cambrian")
    assert generation.start == "warm"
    assert after.line_step == line.line_step + generation.steps_kept
    assert generation.steps_kept == sum(r.steps for r in setting_of(bench, "cambrian").rungs)


def test_fusion_is_told_beside_its_uncoupled_twin_and_not_without_fusion(bench: Workbench) -> None:
    with_fusion, after, _ = found(bench, line_of(bench), "oxidation")
    assert with_fusion.fusion is not None
    assert len(with_fusion.fusion.entropy_nats) == len(with_fusion.sync) + 1
    assert with_fusion.fusions_accepted + with_fusion.fusions_refused > 0
    assert after.shadow, "the consensus goes on as the line's shadow"
    without = switched(bench, without=["fusion"])
    plain, alone, _ = found(without, line_of(without), "oxidation")
    assert plain.fusion is None
    assert plain.sync == ()
    assert not alone.shadow
    assert plain.steps < with_fusion.steps, "nobody pays for a twin that has nothing to show"


def test_without_kuramoto_all_are_pulled_alike(bench: Workbench) -> None:
    angles = np.array([0.0, 0.3, 2.5])
    setting, line = setting_of(bench, "oxidation"), line_of(bench, 1)
    paced = Coupling(bench, line, setting, ("paced",)).strengths(angles)
    assert paced[0] > paced[2], "who runs with the crowd is pulled more"
    alike = Coupling(switched(bench, without=["kuramoto"]), line, setting, ("alike",))
    assert len(set(alike.strengths(angles))) == 1


def population(
    bench: Workbench, line: Member, phase: str, *formulas: str, **adaptation: float
) -> Population:
    candidates = tuple(Candidate(formula=text) for text in formulas)
    proposal = Proposal(candidates=candidates, proposals=len(candidates), duplicates=0)
    return Population(bench, line, setting_of(bench, phase, **adaptation), proposal, 0)


def climb(trials: Population) -> None:
    trials.climb(0, trials.setting.rungs[0], lambda _step, _loss: None)


def coupled(bench: Workbench, line: Member, **adaptation: float) -> tuple[Population, Coupling]:
    trials = population(bench, line, "oxidation", "silu(x)", "relu(x)²", **adaptation)
    climb(trials)
    assert trials.coupling is not None
    return trials, trials.coupling


def test_a_consensus_that_would_do_harm_is_refused_and_leaves_no_trace(bench: Workbench) -> None:
    trials, coupling = coupled(bench, line_of(bench))
    coupling.consensus.perturb(30.0, torch.Generator().manual_seed(1))
    before = [(t.member.fork(), t.nats) for t in trials.members]
    coupling.fuse(trials.members, trials.setting.rungs[0])
    assert (coupling.accepted, coupling.refused) == (0, 3)
    assert coupling.hidden == [], "what did not happen slowed nothing down"
    for trial, (weights, nats) in zip(trials.members, before, strict=True):
        assert same(trial.member, weights)
        assert trial.nats is nats


def test_a_consensus_that_is_ahead_is_accepted_and_pulls_every_member(bench: Workbench) -> None:
    line = line_of(bench)
    trials, coupling = coupled(bench, line)
    line.train(60, bench.train_batches("line"), lambda _: 1.0)
    coupling.consensus = Consensus(line)
    before = [(t.member.fork(), t.nats) for t in trials.members]
    coupling.fuse(trials.members, trials.setting.rungs[0])
    assert (coupling.accepted, coupling.refused) == (3, 0)
    for trial, (weights, nats) in zip(trials.members, before, strict=True):
        assert not same(trial.member, weights)
        assert trial.nats is not None
        assert nats is not None
        assert trial.nats.mean() < nats.mean()
    assert all(0.0 < factor < 1.0 for factor in coupling.hidden)


def test_a_child_to_which_the_lines_weights_are_worth_nothing_is_not_trained(
    bench: Workbench,
) -> None:
    line, setting = line_of(bench, 120), setting_of(bench, "cambrian")
    generation, *_ = run_generation(
        bench, line, initial_state(line.formula), setting, lambda _step, _loss: None,
        tried("-gelu(x)", "gelu(x)+0.01·x"),
    )  # fmt: skip
    mirrored, near = generation.members
    assert mirrored.score is None
    assert mirrored.fate.startswith("not trained: on the line's weights it begins at")
    assert near.score is not None
    alone, *_ = run_generation(
        bench, line_of(bench, 120), initial_state(line.formula), setting, lambda _step, _loss: None,
        tried("gelu(x)+0.01·x"),
    )  # fmt: skip
    assert generation.steps == alone.steps, "nothing is spent on it"
    assert near.score.loss_nats == alone.members[0].score.loss_nats  # type: ignore[union-attr]


def test_a_generation_of_which_nobody_is_tried_is_the_line_going_on(bench: Workbench) -> None:
    line, setting = line_of(bench, 120), setting_of(bench, "cambrian")
    generation, after, state = run_generation(
        bench, line, initial_state(line.formula), setting, lambda _step, _loss: None,
        tried("-gelu(x)", "-2·gelu(x)"),
    )  # fmt: skip
    assert not generation.found
    assert all(member.score is None for member in generation.members)
    assert generation.steps_kept == sum(rung.steps for rung in setting.rungs)
    assert after.line_step == 120 + generation.steps_kept
    assert state.dry == 1


def test_a_fresh_child_has_no_weights_to_be_sent_away_for(bench: Workbench) -> None:
    trials = population(bench, line_of(bench, 120), "primordial", "-1·gelu(x)")
    assert len(trials.alive) == 1


def test_the_mirror_image_of_the_parent_needs_a_cold_twin_to_tell_why(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Population, "worthless", lambda _self, _trial: "")
    line = line_of(bench, 120)
    trials = population(bench, line, "cambrian", "-gelu(x)", "gelu(x)+0.01·x")
    climb(trials)
    checks = trials.test_inheritance(lambda _step, _loss: None)
    assert [check.formula for check in checks] == ["-gelu(x)"]
    assert checks[0].warm_nats.above_zero
    assert checks[0].cold_nats.value == pytest.approx(0.0, abs=1e-6), "fresh, both are one function"


def test_a_fresh_start_has_nothing_to_inherit(bench: Workbench) -> None:
    trials = population(bench, line_of(bench), "primordial", "-1·gelu(x)")
    climb(trials)
    assert trials.test_inheritance(lambda _step, _loss: None) == ()


def test_losses_dealt_out_at_random_are_batch_by_batch_the_same_losses(bench: Workbench) -> None:
    formulas = ("silu(x)", "relu(x)²", "x·gelu(x)")
    honest = population(bench, line_of(bench), "cambrian", *formulas)
    climb(honest)
    dealt_bench = switched(bench, **{"search.shuffle": True})
    dealt = population(dealt_bench, line_of(dealt_bench), "cambrian", *formulas)
    climb(dealt)

    def losses(trials: Population, kind: str) -> np.ndarray:
        return np.array([getattr(trial, kind) for trial in [trials.control, *trials.trials]])

    for kind in ("nats", "train_nats"):
        plain, shuffled = losses(honest, kind), losses(dealt, kind)
        assert not np.array_equal(plain, shuffled)
        np.testing.assert_array_equal(np.sort(plain, axis=0), np.sort(shuffled, axis=0))
        whole = [any(np.array_equal(row, other) for other in plain) for row in shuffled]
        assert not all(whole), "each batch is dealt out by itself"


def test_under_the_null_a_truly_better_function_is_seldom_found(bench: Workbench) -> None:
    line = line_of(bench, 40)
    ahead = line.fork()
    ahead.train(60, bench.train_batches("line"), lambda _: 1.0)
    trials = population(bench, line, "cambrian", "relu(x)", "silu(x)")
    trials.trials[0].member = ahead.fork("relu(x)")
    climb(trials)
    assert _winner(trials) is trials.trials[0]
    honest = [(t.nats, t.train_nats) for t in trials.members]
    finds = 0
    for index in range(200):
        for trial, (nats, train_nats) in zip(trials.members, honest, strict=True):
            trial.nats, trial.train_nats = nats, train_nats
        trials._shuffle(index)
        for trial in trials.alive:
            trial.score = trials._score(trial, 0.0)
        trials._rank()
        finds += _winner(trials) is not None
    assert finds <= 10


def test_a_slower_function_is_judged_at_equal_cost(bench: Workbench) -> None:
    slow = "gelu(x)·silu(x)+tanh(x)·sin(x)+softplus(x)"
    trials = population(bench, line_of(bench), "cambrian", slow, "relu(x)")
    climb(trials)
    by_formula = {t.candidate.formula: t.score for t in trials.trials}
    slower, faster = by_formula[slow], by_formula["relu(x)"]
    assert slower is not None
    assert faster is not None
    assert slower.cost > 1.05 > 1.0 > faster.cost
    assert slower.cost_nats > 0.0 >= faster.cost_nats
    assert slower.judged().value == pytest.approx(slower.loss_nats.value + slower.cost_nats)
    even = switched(bench, without=["ecology"])
    alike = population(even, line_of(even), "cambrian", slow)
    climb(alike)
    assert alike.trials[0].score is not None
    assert alike.trials[0].score.cost_nats == 0.0


@pytest.mark.parametrize(("steps", "is_priced"), [(16, True), (4, False)])
def test_speed_counts_from_fresh_weights_too_where_the_rung_tells_a_slope(
    bench: Workbench, steps: int, is_priced: bool
) -> None:
    longer = switched(bench, **{"phases.primordial.rung_steps": steps})
    slow = "gelu(x)·silu(x)+tanh(x)·sin(x)+softplus(x)·erf(x)"
    trials = population(longer, line_of(longer), "primordial", slow)
    trials.climb(0, trials.setting.rungs[0], lambda _step, _loss: None)
    score = trials.trials[0].score
    assert score is not None
    assert score.cost > 1.05
    assert (score.cost_nats > 0.0) == is_priced


def test_what_a_fresh_generation_measured_is_known_to_be_far_from_the_end(
    bench: Workbench,
) -> None:
    fresh, _, state = found(bench, line_of(bench), "primordial")
    warm, _, after = found(bench, line_of(bench), "cambrian")
    assert fresh.noise_nats > 5 * warm.noise_nats
    assert {t.noise_nats for t in state.lineage} == {fresh.noise_nats}
    assert {t.noise_nats for t in after.lineage} == {warm.noise_nats}


def test_free_energy_adds_the_weight_entropy_to_the_loss(bench: Workbench) -> None:
    hot = switched(bench, **{"search.free_energy": 0.5})
    trials = population(hot, line_of(hot), "cambrian", "relu(x)²")
    climb(trials)
    score = trials.trials[0].score
    assert score is not None
    assert score.entropy_nats != 0.0
    assert score.judged(0.5).value == pytest.approx(
        score.loss_nats.value + score.cost_nats + 0.5 * score.entropy_nats
    )


def test_less_inheritance_mixes_fresh_weights_into_a_childs_ffn_only(bench: Workbench) -> None:
    line = line_of(bench)
    whole = population(bench, line, "cambrian", "relu(x)²").trials[0].member
    setting = setting_of(bench, "cambrian", inherit_less=0.5)
    assert setting.adaptation == Adaptation(inherit_less=0.5)
    candidate = (Candidate(formula="relu(x)²"),)
    proposal = Proposal(candidates=candidate, proposals=1, duplicates=0)
    renewed = Population(bench, line, setting, proposal, 0).trials[0].member
    kept, mixed = whole.arrays(), renewed.arrays()
    moved = {k for k in kept if k.startswith("weights/") and not np.array_equal(kept[k], mixed[k])}
    assert moved
    assert all(".ffn." in name for name in moved)


def test_learned_constants_start_at_the_formula_and_belong_to_each_layer(bench: Workbench) -> None:
    plastic = switched(bench, **{"model.coefficients": "learned"})
    trials = population(plastic, line_of(plastic), "cambrian", "gelu(x)-0.1·x")
    member = trials.trials[0].member
    before = [list(a.learned().values()) for a in member.model.activations]
    climb(trials)
    after = [list(a.learned().values()) for a in member.model.activations]
    assert before[0] == before[1]
    assert after[0] != after[1]
    assert after != before
    grown = member.fork("gelu(x)-0.1·x+0.2·gelu(x)²").model.activations[0].learned()
    kept = member.model.activations[0].learned()
    assert {t: grown[t] for t in kept} == pytest.approx(kept), "common terms keep what they learned"
