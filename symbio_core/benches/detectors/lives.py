"""Short lives of a tiny model, phase by phase, in which a bench plants what it wants to see."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from symbio_core.activations import n_nodes, parse
from symbio_core.config import PhaseName, RunConfig, changed
from symbio_core.gates import judge_overfitting, judge_plateau
from symbio_core.profiles import smoke
from symbio_core.records import (
    Adaptation,
    Candidate,
    EvalPoint,
    Generation,
    Outcome,
    PhasePlan,
    Verdict,
)
from symbio_core.runner.generation import Gather, Population, Setting, gather
from symbio_core.runner.pace import Pace
from symbio_core.runner.phase import PhaseRun
from symbio_core.runner.run import FIRST_FUNCTION, cache_of
from symbio_core.runner.vault import Snapshot, Vault
from symbio_core.runner.workbench import Workbench
from symbio_core.search import Proposal, SearchState, initial_state
from symbio_core.storage import RunStore, open_store
from symbio_core.training import Member

TINY: dict[str, Any] = {
    "data.tokenizer": "char",
    "data.max_bytes": 300_000,
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 32,
    "model.context": 32,
    "optimiser.batch_size": 8,
    "optimiser.peak_lr": 0.004,
    "optimiser.warmup_steps": 10,
    "gates.eval_every": 20,
    "gates.eval_batches": 16,
    "search.eval_batches": 16,
    "search.rungs": 2,
    "search.exploration_frac": 1.0,
    "search.scale": 1.0,
    "budget.max_seconds": None,
    "gates.overtime": 1e6,
    "storage.save_every": 1_000_000,
}
"""What all planted lives share: a model that trains in seconds, and room for generations."""


KEPT = (
    "seed", "data.corpus", "data.format", "gates.confidence", "compute.device",
    "compute.precision", "compute.threads", "storage.root",
)  # fmt: skip
"""What is taken from the settings; all else is the smoke profile's or the bench's own."""


def tiny(config: RunConfig, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the bench's own small training, under the gates and on the corpus of the settings."""
    kept = {key: attrgetter(key)(config) for key in KEPT}
    return changed(smoke(), TINY | kept | dict(changes or {}))


class Life:
    """A main line that goes through phases, without the text gates between them."""

    def __init__(self, config: RunConfig, folder: Path, *, formula: str = FIRST_FUNCTION) -> None:
        self.config = changed(config, {"storage.root": str(folder)})
        self.bench = Workbench(self.config, cache_of(config))
        self.vault = Vault(RunStore(open_store(str(folder)), "life"), self.bench)
        line = self.bench.fresh_member(formula, "line")
        self.here = Snapshot(line, initial_state(line.formula))
        self.start = self.vault.save_start(line, self.here.search)
        self.outcomes: list[Outcome] = []

    def phase(
        self,
        name: PhaseName,
        steps: int,
        *,
        gather: Gather = gather,
        adaptation: Adaptation | None = None,
        lr_scale: float = 1.0,
    ) -> Outcome:
        """Live a phase at a constant learning rate.

        Args:
            name: whose settings hold.
            steps: all that it may spend.
            gather: brings the members of its generations together.
            adaptation: what verdicts have changed before it.
            lr_scale: multiplies the learning rate.
        """
        plan = PhasePlan(
            phase=name, attempt=1, start=self.start.id, steps=steps, begin=0.0, end=0.0,
            adaptation=adaptation or Adaptation(), lr_scale=lr_scale,
        )  # fmt: skip
        tokens = self.bench.tokens_per_step
        pace = Pace(
            self.config, "life", tokens, run_seconds=0.0, phase_seconds=0.0, predicted_s=None
        )
        run = PhaseRun(
            self.bench, self.vault, plan, self.here, pace, start=self.start,
            spent_before=sum(outcome.steps for outcome in self.outcomes), gather=gather,
            history=tuple(g for o in self.outcomes for g in o.generations),
            earlier=tuple(p for o in self.outcomes for p in o.points),
        )  # fmt: skip
        found = run.run()
        self.here = Snapshot(run.line, found.search)
        self.start = found.outcome.end
        self.outcomes.append(found.outcome)
        return found.outcome

    def judged(self) -> tuple[Verdict, ...]:
        """Return what all detectors say of the last phase."""
        *before, last = self.outcomes
        history: tuple[Generation, ...] = tuple(g for o in before for g in o.generations)
        earlier: tuple[EvalPoint, ...] = tuple(p for o in before for p in o.points)
        gates = self.config.gates
        return (
            *judge_overfitting(last, history, gates),
            *judge_plateau(last, history, gates, earlier),
        )


def tried(*formulas: str, kind: type[Population] = Population) -> Gather:
    """Return what brings these functions together, whatever the search would have asked for.

    Args:
        formulas: what is tried.
        kind: how its members live together.
    """

    def brought(bench: Workbench, line: Member, state: SearchState, setting: Setting) -> Population:
        return kind(bench, line, setting, proposed(*formulas), state.generations)

    return brought


def proposed(*formulas: str) -> Proposal:
    """Return these functions as a proposal, all of them new."""
    candidates = tuple(Candidate(formula=f, nodes=n_nodes(parse(f))) for f in formulas)
    return Proposal(candidates=candidates, proposals=len(candidates), duplicates=0)
