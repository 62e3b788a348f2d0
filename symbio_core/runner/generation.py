"""One generation: ask for candidates, train and score them in pairs, tell the search.

Every member starts from the main line's weights and reads the main line's next batches; the line
itself trains along as the control, so a difference of losses is a difference of functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from symbio_core.activations import diversity, parse
from symbio_core.config import PhaseSettings
from symbio_core.monitors import paired_interval
from symbio_core.records import Adaptation, Candidate, Generation, MemberRecord, PhasePlan, Score
from symbio_core.runner.workbench import Workbench
from symbio_core.search import (
    Proposal,
    Ranked,
    Rung,
    SearchState,
    bonus_decay,
    front_after,
    kuramoto,
    propose,
    rank,
    rung_plan,
    select_winner,
    tell,
)
from symbio_core.streams import generator, seed_for
from symbio_core.training import Consensus, Member, Stretch, restore

LAST_RUNG_LR = 0.2
"""The last rung ends at this share of its learning rate: cold scores rank better than hot ones."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and under which numbers a generation happens."""

    plan: PhasePlan
    settings: PhaseSettings
    """The phase's numbers with every adaptation applied."""
    population: int
    rungs: tuple[Rung, ...]
    lr: float
    """Learning rate over peak when it begins."""
    inside: float
    """How far the phase has come (0..1)."""

    @property
    def adaptation(self) -> Adaptation:
        """What verdicts have changed so far."""
        return self.plan.adaptation


@dataclass(slots=True)
class Trial:
    """A member of the generation while it lives."""

    candidate: Candidate
    member: Member
    start_nats: float
    seconds: float = 0.0
    steps: int = 0
    nats: npt.NDArray[np.float64] | None = None
    train_nats: float = float("nan")
    score: Score | None = None
    rung: int = 0
    ranked: Ranked | None = None
    fate: str = ""


class Population:
    """The trials of one generation, the control among them, and their consensus."""

    def __init__(
        self, bench: Workbench, line: Member, setting: Setting, proposal: Proposal
    ) -> None:
        self.bench = bench
        self.setting = setting
        self.begin = line.line_step
        start = float(bench.measure(line.model, bench.searched).mean())
        own = Candidate(formula=line.formula, mutation="control")
        self.control = Trial(own, line.fork(), start)
        self.trials = [
            Trial(candidate, line.fork(candidate.formula), start)
            for candidate in proposal.candidates
        ]
        self.alive = list(self.trials)
        self.consensus = Consensus(line)
        if setting.adaptation.perturb_consensus:
            seed = seed_for(bench.config.seed, "perturb", setting.plan.phase, self.begin)
            rng = torch.Generator().manual_seed(seed)
            self.consensus.perturb(setting.adaptation.perturb_consensus, rng)
        name = ("angles", setting.plan.phase, setting.plan.attempt, self.begin)
        self.angles = generator(bench.config.seed, *name).uniform(
            0, 2 * np.pi, len(self.trials) + 1
        )
        self.angle_of = {id(trial): i for i, trial in enumerate([self.control, *self.trials])}
        self.sync: list[float] = []
        self.gaps: list[float] = []
        self.accepted = 0
        self.refused = 0
        self.hidden: list[float] = []
        self.steps = 0

    @property
    def members(self) -> list[Trial]:
        """All that still train: the control and the trials alive."""
        return [self.control, *self.alive]

    def climb(self, index: int, rung: Rung, on_step: Callable[[int, float], None]) -> None:
        """Train everyone alive for a rung, score them in pairs, and rank them."""
        batches = self.bench.train_batches("line")
        last = index == len(self.setting.rungs) - 1
        for trial in self.members:
            stretch = trial.member.train(
                rung.steps,
                batches,
                self._lr_at(rung, last=last),
                clip_scale=self.setting.adaptation.clip_scale,
                on_step=on_step,
            )
            self._note(trial, stretch)
        for trial in self.members:
            trial.nats = self.bench.measure(trial.member.model, self.bench.searched)
            probe = self.bench.train_probe[: len(self.bench.searched)]
            trial.train_nats = float(self.bench.measure(trial.member.model, probe).mean())
        for trial in self.alive:
            trial.rung = index
            trial.score = self._score(trial)
        self._rank()

    def _note(self, trial: Trial, stretch: Stretch) -> None:
        trial.seconds += stretch.seconds
        trial.steps += stretch.steps
        self.steps += stretch.steps

    def _lr_at(self, rung: Rung, *, last: bool) -> Callable[[int], float]:
        first = self.control.member.line_step

        def lr_at(line_step: int) -> float:
            if not last:
                return self.setting.lr
            done = (line_step - first) / max(1, rung.steps)
            return self.setting.lr * (1.0 - (1.0 - LAST_RUNG_LR) * done)

        return lr_at

    def _score(self, trial: Trial) -> Score:
        assert trial.nats is not None
        assert self.control.nats is not None
        return Score(
            loss_nats=paired_interval(
                trial.nats, self.control.nats, confidence=self.bench.config.gates.confidence
            ),
            train_nats=trial.train_nats - self.control.train_nats,
            steps=trial.steps,
            seconds=trial.seconds,
        )

    def _rank(self) -> None:
        settings, search = self.setting.settings, self.bench.config.search
        scored = [(t.candidate, t.score) for t in self.alive if t.score is not None]
        ranked = rank(
            scored,
            diversity_bonus=settings.diversity_bonus * bonus_decay(self.setting.inside),
            complexity_price=search.complexity_price * self.setting.adaptation.price_scale,
        )
        by_formula = {r.candidate.formula: r for r in ranked}
        for trial in self.alive:
            trial.ranked = by_formula[trial.candidate.formula]
        self.alive.sort(key=_rank_value)

    def drop_to(self, members: int) -> None:
        """Let the worse part go."""
        for trial in self.alive[members:]:
            assert trial.score is not None
            trial.fate = f"dropped at rung {trial.rung + 1}, {trial.score.loss_nats.value:+.4f} nat"
        self.alive = self.alive[:members]

    def fuse(self, rung: Rung) -> None:
        """Advance the phases, then pull each member to the consensus where that does no harm."""
        fusion = self.setting.settings.fusion
        living = self.members
        where = [self.angle_of[id(trial)] for trial in living]
        rates = np.array([(t.start_nats - float(_mean(t))) / max(1, t.steps) for t in living])
        angles = kuramoto.integrate(
            self.angles[where],
            kuramoto.natural_frequencies(rates),
            coupling=self.setting.settings.coupling,
            damping=fusion.damping,
            n=rung.steps,
        )
        self.angles[where] = angles
        r, _ = kuramoto.order_parameter(angles)
        self.sync.append(r)
        self.gaps.append(kuramoto.largest_gap(angles))
        if fusion.max == 0.0:
            return
        self.consensus.follow(
            [t.member for t in living], rate=fusion.consensus_rate, steps=rung.steps
        )
        strengths = kuramoto.pull(angles, fusion.base, fusion.max)
        for trial, strength in zip(living, strengths, strict=True):
            self._try_fusion(trial, float(strength), rung)

    def _try_fusion(self, trial: Trial, strength: float, rung: Rung) -> None:
        assert trial.nats is not None
        before = self.consensus.pull(trial.member, strength=strength, steps=rung.steps)
        fused = self.bench.measure(trial.member.model, self.bench.searched)
        if float(fused.mean()) <= float(trial.nats.mean()):
            self.accepted += 1
            trial.nats = fused
            rate = self.setting.settings.fusion.consensus_rate
            self.hidden.append(kuramoto.hidden_lr_factor(rate, strength))
        else:
            self.refused += 1
            restore(trial.member, before)


def run_generation(
    bench: Workbench,
    line: Member,
    state: SearchState,
    setting: Setting,
    on_step: Callable[[int, float], None],
) -> tuple[Generation, Member, SearchState]:
    """Run one generation and return what it found, the line that goes on, and the search's state.

    The line goes on with the winner's function and weights where one beat the control with
    confidence, else with the control's; either way it keeps the steps it trained here.
    """
    began = time.perf_counter()
    config, plan = bench.config, setting.plan
    proposal = propose(
        state,
        parent=line.formula,
        n=setting.population,
        settings=setting.settings,
        search=config.search,
        adaptation=setting.adaptation,
        rng=generator(config.seed, "propose", plan.phase, plan.attempt, state.generations),
    )
    population = Population(bench, line, setting, proposal)
    for index, rung in enumerate(setting.rungs):
        population.drop_to(rung.members)
        population.climb(index, rung, on_step)
        if index < len(setting.rungs) - 1:
            population.fuse(rung)
    won = select_winner(
        [t.ranked for t in population.alive if t.ranked is not None],
        n_batches=len(bench.searched),
    )
    winner = next(
        (t for t in population.alive if won and t.candidate.formula == won.candidate.formula), None
    )
    for trial in population.alive:
        trial.fate = "won" if trial is winner else "survived"
    kept = winner or population.control
    generation = _told(population, proposal, state, winner, time.perf_counter() - began)
    return generation, kept.member, tell(state, generation)


def plan_rungs(bench: Workbench, settings: PhaseSettings, population: int) -> tuple[Rung, ...]:
    """Return the stages of a generation of ``population`` candidates."""
    search = bench.config.search
    return rung_plan(
        population,
        rungs=search.rungs,
        rung_steps=settings.rung_steps,
        keep_frac=search.keep_frac,
    )


def _told(
    population: Population,
    proposal: Proposal,
    state: SearchState,
    winner: Trial | None,
    seconds: float,
) -> Generation:
    setting = population.setting
    members = tuple(_record(trial) for trial in population.trials)
    formulas = [t.candidate.formula for t in population.trials]
    return Generation(
        phase=setting.plan.phase,
        attempt=setting.plan.attempt,
        index=state.generations,
        parent=population.control.candidate.formula,
        members=members,
        winner=winner.candidate.formula if winner else population.control.candidate.formula,
        found=winner is not None,
        front_moved=front_after(state, members, parent=population.control.candidate.formula),
        proposals=proposal.proposals,
        duplicates=proposal.duplicates,
        diversity=diversity([parse(name) for name in formulas]),
        sync=tuple(population.sync),
        angle_gaps=tuple(population.gaps),
        fusions_accepted=population.accepted,
        fusions_refused=population.refused,
        hidden_lr_factor=float(np.mean(population.hidden)) if population.hidden else 1.0,
        steps=population.steps,
        steps_kept=population.control.steps,
        seconds=seconds,
    )


def _record(trial: Trial) -> MemberRecord:
    return MemberRecord(
        candidate=trial.candidate,
        score=trial.score,
        rung=trial.rung,
        rank_value=trial.ranked.rank_value if trial.ranked else 0.0,
        novelty=trial.ranked.novelty if trial.ranked else 0.0,
        fate=trial.fate,
    )


def _mean(trial: Trial) -> float:
    assert trial.nats is not None
    return float(trial.nats.mean())


def _rank_value(trial: Trial) -> float:
    assert trial.ranked is not None
    return trial.ranked.rank_value
