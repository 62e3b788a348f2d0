"""Situations that the detectors exist for, each caused in a tiny real training. One a detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symbio_core.benches.detectors.lives import Life, proposed, tiny, tried
from symbio_core.benches.detectors.texts import cycles, ten_lines
from symbio_core.config import RunConfig
from symbio_core.lifecycle import generation_price
from symbio_core.runner.generation import Gather, Population, Setting, Trial
from symbio_core.runner.workbench import Workbench
from symbio_core.search import SearchState, propose
from symbio_core.streams import generator
from symbio_core.training import Consensus, Member

ALONE = {"without": ("search", "final")}
"""The main line alone."""
SHORT = {
    "phases.cambrian.rung_steps": 8, "phases.cambrian.population": 4, "search.patience": 1,
}  # fmt: skip
"""Generations of four candidates that train 8 steps, and the best of them 16."""
GROWN = 200
"""Steps that the main line has learned before anything is planted."""
BY_HEART, FEW, FADING = 200, 24, 8.0
"""Steps in which a point is learned by heart, batches that it is learned from, and the weight decay
meanwhile."""
RELATED = ("silu(x)", "relu(x)", "relu(x)²", "gelu(x)+0.01·x")
"""Candidates that all is well with."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A situation and the detector that has to see it."""

    detector: str
    about: str
    live: Callable[[RunConfig, Path], Life]
    """Lives up to the phase that is judged; its folder holds whatever the life writes."""


def one_generation(
    life: Life, gather: Gather, *, of: int = 1, after: int = 10, lr_scale: float = 1.0
) -> None:
    """Live a phase that can buy ``of`` generations, and then trains ``after`` steps."""
    settings = life.config.phase("cambrian")
    price = generation_price(life.config, settings, settings.population)
    life.phase("cambrian", of * price + after, gather=gather, lr_scale=lr_scale)


# --- overfitting


def divergence(config: RunConfig, folder: Path) -> Life:
    """Train a line on ten lines of text, over and over; what is held out is other text."""
    life = Life(tiny(config, ALONE | ten_lines(config, folder)), folder)
    life.phase("abiogenesis", 40)
    life.phase("primordial", 500, lr_scale=0.5)
    return life


class _OneReadsItAll(Population):
    """Members of which the first reads the same few batches again and again."""

    def _train(self, trial: Trial, steps: int, lr_at: Any, on_step: Any) -> None:
        shared = self.batches
        if trial is self.trials[0]:
            probe = self.bench.train_probe[: len(self.bench.searched)]
            self.batches = lambda step: probe[step % len(probe)]
        try:
            super()._train(trial, steps, lr_at, on_step)
        finally:
            self.batches = shared


def memorisation(config: RunConfig, folder: Path) -> Life:
    """Let one member of a generation read the same sixteen batches over and over."""
    life = Life(tiny(config, SHORT | {"phases.cambrian.rung_steps": 40}), folder)
    life.phase("abiogenesis", GROWN)
    one_generation(life, tried(*RELATED, kind=_OneReadsItAll))
    return life


def collapse(config: RunConfig, folder: Path) -> Life:
    """Make all members the parent's function in different clothes."""
    life = Life(tiny(config, SHORT), folder)
    life.phase("abiogenesis", GROWN)
    clothes = ("2·gelu(x)", "gelu(x)+0.01·x", "0.5·gelu(x)+0.01·x²", "gelu(x)+0.02·relu(x)")
    one_generation(life, tried(*clothes))
    return life


def trap(config: RunConfig, folder: Path) -> Life:
    """Freeze the consensus at a point that was learned by heart, and pull members to it.

    They train hotly, so that they have learned more than can be seen before their learning rate
    falls: the point looks better at the time of the pull, and is thus accepted. Cooler, the pull
    would be refused; shorter, the members would not get past the point in the end.
    """
    changes = {
        "phases.cambrian.rung_steps": 150, "phases.cambrian.population": 2,
        "phases.cambrian.coupling": 0.0,
        "phases.cambrian.fusion.base": 0.5, "phases.cambrian.fusion.max": 0.5,
        "phases.cambrian.fusion.consensus_rate": 0.0,
        "gates.eval_batches": 32, "search.eval_batches": 32,
    }  # fmt: skip

    def gather(bench: Workbench, line: Member, state: SearchState, setting: Setting) -> Population:
        population = Population(bench, line, setting, proposed("silu(x)", "relu(x)"), 0)
        assert population.coupling is not None
        population.coupling.consensus = Consensus(_by_heart(bench, line))
        return population

    life = Life(tiny(config, SHORT | changes), folder)
    life.phase("abiogenesis", 150)
    one_generation(life, gather, after=0, lr_scale=18.0)
    return life


def _by_heart(bench: Workbench, line: Member) -> Member:
    """Return a fork of the line that few batches are all to; weights they do not need fade."""
    member, begun = line.fork(), line.line_step
    for optimiser in member.optimisers:
        for group in optimiser.param_groups:
            group["weight_decay"] *= FADING / bench.config.optimiser.weight_decay
    few = bench.train_batches("few")
    member.train(
        BY_HEART,
        lambda step: few(step % FEW),
        lambda step: max(0.02, 1.0 - (step - begun) / BY_HEART),
    )
    return member


def complexity(config: RunConfig, folder: Path) -> Life:
    """Set large trees beside a straight-lined one, where ten lines are all there is to learn."""
    settings = {
        "search.rungs": 1, "phases.primordial.rung_steps": 360, "phases.primordial.population": 4,
        "search.eval_batches": 48, "gates.eval_batches": 48, "without": ("fusion", "kuramoto"),
    }  # fmt: skip
    life = Life(tiny(config, settings | ten_lines(config, folder)), folder)
    life.phase("abiogenesis", 20)
    bloated = "relu(x)²+x·gelu(x)+{}·gelu(x)·silu(x)"
    trees = (*(bloated.format(factor) for factor in ("0.9", "1", "1.1")), "x+0.2·gelu(x)")
    price = generation_price(life.config, life.config.phase("primordial"), 4)
    life.phase("primordial", price + 10, gather=tried(*trees))
    return life


class _AllInherit(Population):
    """Members of which none is sent away for what the inherited weights are worth to it."""

    def worthless(self, trial: Trial) -> str:
        """Have nothing against anyone."""
        return ""


def interference(config: RunConfig, folder: Path) -> Life:
    """Make a child minus its parent's function; its sibling hardly differs from the parent.

    A generation would not try such a child: it is tried here, for the detector's sake.
    """
    life = Life(tiny(config, SHORT), folder)
    life.phase("abiogenesis", GROWN)
    one_generation(life, tried("-gelu(x)", "gelu(x)+0.01·x", kind=_AllInherit))
    return life


# --- plateaus


def exhaustion(config: RunConfig, folder: Path) -> Life:
    """Let the search build from one leaf, and no more than three nodes."""

    def gather(bench: Workbench, line: Member, state: SearchState, setting: Setting) -> Population:
        plan = setting.plan
        rng = generator(bench.config.seed, "propose", plan.phase, plan.attempt, state.generations)
        proposal = propose(
            state, parent=line.formula, n=setting.population, settings=setting.settings,
            search=bench.config.search, adaptation=setting.adaptation, rng=rng, pool=("relu",),
        )  # fmt: skip
        return Population(bench, line, setting, proposal, state.generations)

    small = {"phases.cambrian.max_depth": 2, "phases.cambrian.max_nodes": 3, "search.patience": 9}
    life = Life(tiny(config, SHORT | small), folder)
    life.phase("abiogenesis", GROWN)
    one_generation(life, gather, of=2)
    one_generation(life, gather)
    return life


def equilibrium(config: RunConfig, folder: Path) -> Life:
    """Try functions that differ much, twice, on a text of which nothing is left to be learned."""
    changes = {
        "search.patience": 2, "phases.cambrian.coupling": 0.0, "phases.cambrian.rung_steps": 8,
        "phases.cambrian.population": 4, "gates.eval_every": 10,
    }  # fmt: skip
    life = Life(tiny(config, changes | cycles(config, folder)), folder)
    life.phase("abiogenesis", 60)
    one_generation(life, tried("sin(x)", "tanh(x)", "x²", "sigmoid(x)"), of=2, after=60)
    return life


def stagnation(config: RunConfig, folder: Path) -> Life:
    """Couple members fast, on text of which nothing is left to be learned after a quick start."""
    changes = {"phases.cambrian.coupling": 20.0, "gates.eval_every": 10}
    life = Life(tiny(config, SHORT | changes | cycles(config, folder)), folder)
    life.phase("abiogenesis", 60)
    one_generation(life, tried("silu(x)", "relu(x)", "relu(x)²"), after=100)
    return life


def mismatch(config: RunConfig, folder: Path) -> Life:
    """Send a line that learns well on at 30 times its learning rate."""
    life = Life(tiny(config, ALONE | {"gates.eval_batches": 48}), folder)
    life.phase("abiogenesis", GROWN)
    life.phase("primordial", 120, lr_scale=30.0)
    return life


PLANTS = {
    "ten lines": Plant(
        "train/validation divergence", "the line learns ten repeated lines by heart", divergence
    ),
    "one reader": Plant(
        "candidate memorisation", "one member reads the same batches over and over", memorisation
    ),
    "one function": Plant(
        "population collapse", "all members are one function in different clothes", collapse
    ),
    "frozen shadow": Plant(
        "fusion trap", "the consensus is frozen at a point learned by heart", trap
    ),
    "bloated trees": Plant(
        "complexity overfitting", "large trees learn ten lines by heart, a simple one less",
        complexity,
    ),
    "mirror image": Plant(
        "transfer interference", "a child is minus its parent's function", interference
    ),
    "one leaf": Plant(
        "activation space exhaustion", "the search may build from one leaf only", exhaustion
    ),
    "diverse and still": Plant(
        "punctuated equilibrium", "the loss stands still while candidates differ much", equilibrium
    ),
    "all as one": Plant(
        "consensus stagnation", "members run as one, and there is nothing left to learn", stagnation
    ),
    "lr × 30": Plant(
        "learning-rate mismatch", "a good line goes on at 30 times its learning rate", mismatch
    ),
}  # fmt: skip
WELL: dict[str, Any] = {
    "budget.steps": 1500, "search.exploration_frac": 0.5, "search.scale": 0.5,
    "phases.primordial.population": 4, "phases.primordial.rung_steps": 14,
    "phases.cambrian.population": 3, "phases.cambrian.rung_steps": 10,
    "phases.oxidation.population": 3, "phases.oxidation.rung_steps": 10,
    "confirm.steps_frac": 0.1, "confirm.seeds": 2,
}  # fmt: skip
"""What all healthy lives share."""
HEALTHY: dict[str, dict[str, Any]] = {
    "healthy, all on": WELL,
    "healthy, no fusion": WELL | {"without": ("fusion", "kuramoto"), "model.n_layer": 2},
    "healthy, seed's rates": WELL | {"optimiser.schedule": "seed", "search.patience": 2},
    "healthy, word pieces": WELL | {"data.tokenizer": "bpe", "data.vocab_size": 384},
    "healthy, low clip": WELL | {"optimiser.clip_norm": 0.3},
}
"""Settings of healthy lives: mechanisms, models, learning rates and tokens differ."""
