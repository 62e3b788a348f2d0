"""Every number that verdicts may move reaches the training that it is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from symbio_core.activations import n_nodes, parse
from symbio_core.benches.detectors.lives import Life, tried
from symbio_core.config import RunConfig, changed
from symbio_core.records import Adaptation, Candidate
from symbio_core.runner.coupling import Coupling
from symbio_core.runner.generation import Population
from symbio_core.runner.workbench import Workbench
from symbio_core.search import Proposal
from symbio_core.training import Consensus, Member
from symbio_core.training.fusion import compounded, shared
from tests.runner.test_generation import bench, climb, line_of, same, setting_of, switched

__all__ = ["bench"]  # the fixture

LARGE = "gelu(x)·silu(x)+tanh(x)·sin(x)"


def population(bench: Workbench, line: Member, **adaptation: float) -> Population:
    candidates = tuple(Candidate(formula=f, nodes=n_nodes(parse(f))) for f in ("silu(x)", LARGE))
    proposal = Proposal(candidates=candidates, proposals=2, duplicates=0)
    setting = setting_of(bench, "oxidation", **adaptation)
    trials = Population(bench, line, setting, proposal, 0)
    climb(trials)
    return trials


def coupling_of(trials: Population) -> Coupling:
    assert trials.coupling is not None
    return trials.coupling


def test_a_perturbed_consensus_begins_off_the_line_by_as_much_as_was_asked_for(
    bench: Workbench,
) -> None:
    line = line_of(bench)
    plain, stirred = (
        Coupling(bench, line, setting_of(bench, "oxidation", perturb_consensus=noise), ("one",))
        for noise in (0.0, 0.05)
    )
    for weight, calm, moved in zip(
        shared(line), plain.consensus.weights, stirred.consensus.weights, strict=True
    ):
        assert np.array_equal(weight.detach().numpy(), calm.numpy())
        if weight.numel() > 500:
            noise = float((moved - calm).std() / calm.std())
            assert noise == pytest.approx(0.05, rel=0.2)


@pytest.mark.parametrize("reset", [0.0, 1.0])
def test_a_consensus_that_is_reset_forgets_what_it_was(bench: Workbench, reset: float) -> None:
    trials = population(bench, line_of(bench), reset_consensus=reset)
    coupling, rung = coupling_of(trials), trials.setting.rungs[0]
    old = Consensus(bench.fresh_member("gelu(x)", "elsewhere"))
    coupling.consensus = old
    first = Consensus(trials.control.member) if reset else old
    begun = [weight.clone() for weight in first.weights]
    weights = [[p.detach().clone() for p in shared(t.member)] for t in trials.members]
    coupling.fuse(trials.members, rung)
    share = compounded(trials.setting.settings.fusion.consensus_rate, rung.steps)
    for index, (was, now) in enumerate(zip(begun, coupling.consensus.weights, strict=True)):
        mean = sum(own[index] for own in weights) / len(weights)
        np.testing.assert_allclose(now, was + share * (mean - was), atol=1e-6)


def test_a_node_costs_as_many_times_more_as_the_price_was_raised(bench: Workbench) -> None:
    line = line_of(bench)
    plain, dear = (population(bench, line, price_scale=scale) for scale in (1.0, 8.0))
    price = bench.config.search.complexity_price
    for one, other in zip(plain.trials, dear.trials, strict=True):
        assert one.ranked is not None
        assert other.ranked is not None
        more = other.ranked.rank_value - one.ranked.rank_value
        assert more == pytest.approx(7.0 * price * (one.candidate.nodes - 1))
    assert max(trial.candidate.nodes for trial in plain.trials) > 5


def test_every_member_of_a_generation_is_clipped_as_was_asked_for(bench: Workbench) -> None:
    line = line_of(bench)
    tight = population(switched(bench, **{"optimiser.clip_norm": 0.1}), forked(bench, line))
    loose = switched(bench, **{"optimiser.clip_norm": 0.5})
    scaled = population(loose, forked(bench, line), clip_scale=0.2)
    free = population(loose, forked(bench, line))
    for one, other, third in zip(tight.members, scaled.members, free.members, strict=True):
        assert same(one.member, other.member)
        assert not same(one.member, third.member)
    twins = [coupling_of(trials).twin for trials in (tight, scaled, free)]
    assert same(twins[0], twins[1])
    assert not same(twins[0], twins[2])


def forked(bench: Workbench, line: Member) -> Member:
    """Return the line under the bench's settings of now."""
    arrays = line.arrays()
    return Member.from_arrays(bench.config, bench.n_vocab, line.formula, bench.device, arrays)


# --- the main line


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all lives, so that the corpus is cut and tokenised once."""
    return tmp_path_factory.mktemp("lives")


@pytest.fixture
def still(tiny_config: RunConfig) -> RunConfig:
    """A line that hardly moves, so that its phase buys a probe of the learning rate."""
    hardly = {"optimiser.peak_lr": 1e-5, "gates.eval_every": 5, "without": ["search", "final"]}
    return changed(tiny_config, hardly)


def lived(config: RunConfig, folder: Path, **numbers: float) -> tuple[Member, Life]:
    life = Life(config, folder)
    life.phase("primordial", 50, adaptation=Adaptation(**numbers))
    return life.here.member, life


def test_a_line_is_trained_at_the_learning_rate_that_was_asked_for(
    tiny_config: RunConfig, home: Path
) -> None:
    whole = changed(tiny_config, {"without": ["search", "final", "probe"]})
    half = changed(whole, {"optimiser.peak_lr": whole.optimiser.peak_lr / 2})
    plain, _ = lived(half, home)
    scaled, _ = lived(whole, home, lr_scale=0.5)
    assert same(plain, scaled)
    assert not same(plain, lived(whole, home)[0])


def test_a_line_and_its_probe_are_clipped_as_was_asked_for(still: RunConfig, home: Path) -> None:
    loose = changed(still, {"optimiser.clip_norm": 0.5})
    tight = changed(still, {"optimiser.clip_norm": 0.1})
    plain, one = lived(tight, home)
    scaled, other = lived(loose, home, clip_scale=0.2)
    assert same(plain, scaled)
    assert one.outcomes[-1].lr_probe is not None
    assert one.outcomes[-1].lr_probe == other.outcomes[-1].lr_probe
    assert not same(plain, lived(loose, home)[0])


@pytest.mark.parametrize("more", [0, 2])
def test_a_search_that_finds_nothing_waits_as_much_longer_as_was_asked_for(
    tiny_config: RunConfig, home: Path, more: int
) -> None:
    patient = {"search.patience": 1, "search.exploration_frac": 1.0}
    life = Life(changed(tiny_config, patient), home)
    like = tried("gelu(x)+0.001·x", "gelu(x)+0.002·x", "gelu(x)+0.003·x")
    numbers = Adaptation(extra_patience=float(more))
    found = life.phase("cambrian", 300, gather=like, adaptation=numbers).generations
    assert [g.found for g in found] == [False] * (1 + more)
