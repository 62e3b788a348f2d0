"""One generation: ask for candidates, train and score them in pairs, tell the search.

Members of a generation start from the same weights and read the same batches, and one of them, the
control, keeps the main line's own function; so a difference of losses is a difference of functions.
A warm generation starts from the main line, and the control is the main line going on. A fresh one
starts from new weights of a smaller model, whose steps are counted by their cost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

from symbio_core.activations import (
    Expression,
    distance,
    diversity,
    parse,
    shares_of_diversity,
)
from symbio_core.config import PhaseSettings, SearchSettings
from symbio_core.monitors import paired_interval, population_entropy, t_interval
from symbio_core.records import (
    Adaptation,
    Candidate,
    Generation,
    Interval,
    MemberRecord,
    PhasePlan,
    Score,
    TransferCheck,
)
from symbio_core.runner.confirm import NOTICEABLE_COST
from symbio_core.runner.coupling import Coupling
from symbio_core.runner.workbench import Workbench
from symbio_core.search import (
    TRAINING_NOISE_NATS,
    Pressure,
    Proposal,
    Ranked,
    Rung,
    SearchState,
    bonus_decay,
    early_noise,
    front_after,
    propose,
    rank,
    rung_plan,
    select_winner,
    tell,
)
from symbio_core.streams import generator
from symbio_core.training import Member, Stretch, adopt_shadow, ffn_entropy
from symbio_core.training.schedule import warmup

LAST_RUNG_LR = 0.2
"""The last rung ends at this share of its learning rate: cold scores rank better than hot ones."""
OFTEN = 0.5
"""Share of its first rung above the control that has a child's inheritance put to the test."""
LOOKED_AT = 4
"""Validation batches that tell what a child knows before it trains."""
Nats = npt.NDArray[np.float64]


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

    @property
    def is_fresh(self) -> bool:
        """Whether members start from fresh weights of a smaller model."""
        return self.settings.start == "fresh"


@dataclass(slots=True)
class Trial:
    """A member of the generation while it lives."""

    candidate: Candidate
    member: Member
    start_nats: float
    cost: float = 1.0
    seconds: float = 0.0
    steps: int = 0
    skipped: int = 0
    clipped: int = 0
    nats: Nats | None = None
    train_nats: Nats | None = None
    first_nats: Nats | None = None
    """Validation loss after the first rung as it was measured, nothing shuffled or fused."""
    losses: list[float] = field(default_factory=list)
    """Training loss at each step of the first rung (nats a token)."""
    gaps: list[Interval] = field(default_factory=list)
    score: Score | None = None
    above_frac: float = 0.0
    rung: int = 0
    ranked: Ranked | None = None
    fate: str = ""


class Population:
    """The trials of one generation, the control among them."""

    def __init__(
        self, bench: Workbench, line: Member, setting: Setting, proposal: Proposal, index: int
    ) -> None:
        self.setting = setting
        self.proposal = proposal
        self.name = (setting.plan.phase, setting.plan.attempt, index)
        self.bench = bench.reduced(bench.config.search.scale) if setting.is_fresh else bench
        parent = self.bench.fresh_member(line.formula, "rung", *self.name)
        if not setting.is_fresh:
            parent = line
        stream = ("rung", *self.name) if setting.is_fresh else ("line",)
        self.batches = self.bench.train_batches(*stream)
        start = float(self.bench.measure(parent.model, self.bench.searched).mean())
        own = Candidate(formula=line.formula, mutation="control")
        self.control = Trial(own, parent.fork(), start)
        self.trials = [self._child(parent, c, start) for c in proposal.candidates]
        for trial in self.trials:
            trial.fate = self.worthless(trial)
        self.alive = [trial for trial in self.trials if not trial.fate]
        self.steps = 0
        self.coupling: Coupling | None = None
        if self.bench.config.has("fusion") and not setting.is_fresh:
            self.coupling = Coupling(self.bench, parent, setting, self.name)
        self.before = (self.control.member.line_step, start)

    def _child(self, parent: Member, candidate: Candidate, start: float) -> Trial:
        member = parent.fork(candidate.formula)
        share = self.setting.adaptation.inherit_less
        if share and not self.setting.is_fresh:
            fresh = self.bench.fresh_member(candidate.formula, "renewed", *self.name)
            member.renew_ffn(fresh, share)
        cost = self.bench.function_cost(candidate.formula, self.control.candidate.formula)
        return Trial(candidate, member, start, cost)

    def worthless(self, trial: Trial) -> str:
        """Say why the line's weights are worth nothing to a child, which is then not trained.

        Empty where they are worth something. With some functions they know less than fresh weights,
        which guess at ln(vocabulary) nats a token. A rung is too short to unlearn that: such
        children ended theirs some nats behind.
        """
        if self.setting.is_fresh:
            return ""
        looked = self.bench.searched[:LOOKED_AT]
        nats = float(self.bench.measure(trial.member.model, looked).mean())
        limit = max(math.log(self.bench.n_vocab), trial.start_nats)
        if nats <= limit:
            return ""
        begins = f"on the line's weights it begins at {nats:.2f} nats"
        return f"not trained: {begins}, no better than guessing ({limit:.2f})"

    @property
    def members(self) -> list[Trial]:
        """All that still train: the control and the trials alive."""
        return [self.control, *self.alive]

    def climb(self, index: int, rung: Rung, on_step: Callable[[int, float], None]) -> None:
        """Train everyone alive for a rung, score them in pairs, and rank them."""
        lr_at = self._lr_at(rung, last=index == len(self.setting.rungs) - 1)
        for trial in self.members:
            self._train(trial, rung.steps, lr_at, on_step)
        if self.coupling is not None:
            self.steps += self.coupling.train_twin(rung.steps, self.batches, lr_at, on_step)
        probe = self.bench.train_probe[: len(self.bench.searched)]
        for trial in self.members:
            trial.nats = self.bench.measure(trial.member.model, self.bench.searched)
            trial.train_nats = self.bench.measure(trial.member.model, probe)
            if index == 0:
                trial.first_nats = trial.nats
        if self.bench.config.search.shuffle:
            self._shuffle(index)
        slope = self._slope()
        for trial in self.alive:
            trial.rung = index
            trial.score = self._score(trial, slope)
            trial.gaps.append(self._gap(trial))
            if index == 0:
                above = np.array(trial.losses) > np.array(self.control.losses)
                trial.above_frac = float(above.mean())
        self._rank()

    def _train(
        self,
        trial: Trial,
        steps: int,
        lr_at: Callable[[int], float],
        on_step: Callable[[int, float], None],
    ) -> None:
        is_first = trial.steps == 0

        def noted(index: int, loss: float) -> None:
            if is_first:
                trial.losses.append(loss)
            on_step(index, loss)

        stretch: Stretch = trial.member.train(
            steps,
            self.batches,
            lr_at,
            clip_scale=self.setting.adaptation.clip_scale,
            on_step=noted,
        )
        trial.seconds += stretch.seconds
        trial.steps += stretch.steps
        trial.skipped += stretch.skipped
        trial.clipped += stretch.clipped
        self.steps += stretch.steps

    def _lr_at(self, rung: Rung, *, last: bool) -> Callable[[int], float]:
        first, config = self.control.member.line_step, self.bench.config
        high = 1.0 if self.setting.is_fresh else self.setting.lr

        def lr_at(line_step: int) -> float:
            risen = high * warmup(config, line_step) if self.setting.is_fresh else high
            if not last:
                return risen
            done = (line_step - first) / max(1, rung.steps)
            return risen * (1.0 - (1.0 - LAST_RUNG_LR) * done)

        return lr_at

    def _shuffle(self, index: int) -> None:
        """Deal the losses of each batch out anew, so that no function is ahead but by luck.

        Whole losses dealt out would still hold one that is truly lower, whoever it went to.
        """
        rng = generator(self.bench.config.seed, "shuffle", *self.name, index)
        members = self.members
        rows = np.tile(np.arange(len(members))[:, None], len(self.bench.searched))
        places = rng.permuted(rows, axis=0)
        nats, train = (
            np.take_along_axis(np.array(losses), places, axis=0)
            for losses in ([t.nats for t in members], [t.train_nats for t in members])
        )
        for trial, own, other in zip(members, nats, train, strict=True):
            trial.nats, trial.train_nats = own, other

    def _slope(self) -> float:
        """Return what the control gains for e times as many steps (nats a token, ≥ 0)."""
        (step, nats), now = self.before, self.control.member.line_step
        loss = _mean(self.control)
        self.before = (now, loss)
        if step == 0:
            return _late_slope(self.control.losses)
        return max(0.0, (nats - loss) / np.log(now / step)) if step < now else 0.0

    def _score(self, trial: Trial, slope: float) -> Score:
        assert trial.nats is not None
        assert trial.train_nats is not None
        assert self.control.nats is not None
        assert self.control.train_nats is not None
        config = self.bench.config
        priced = config.has("ecology") and abs(trial.cost - 1.0) >= NOTICEABLE_COST
        entropy = 0.0
        if config.search.free_energy:
            entropy = ffn_entropy(trial.member.model) - ffn_entropy(self.control.member.model)
        return Score(
            loss_nats=paired_interval(
                trial.nats, self.control.nats, confidence=config.gates.confidence
            ),
            train_nats=float((trial.train_nats - self.control.train_nats).mean()),
            steps=trial.steps,
            seconds=trial.seconds,
            cost=trial.cost,
            cost_nats=slope * float(np.log(trial.cost)) if priced else 0.0,
            entropy_nats=entropy,
        )

    def _gap(self, trial: Trial) -> Interval:
        assert trial.nats is not None
        assert trial.train_nats is not None
        assert self.control.nats is not None
        assert self.control.train_nats is not None
        own = trial.nats - self.control.nats
        train = trial.train_nats - self.control.train_nats
        return paired_interval(own, train, confidence=self.bench.config.gates.confidence)

    def _rank(self) -> None:
        settings, config = self.setting.settings, self.bench.config
        scored = [(t.candidate, t.score) for t in self.alive if t.score is not None]
        bonus = settings.diversity_bonus * bonus_decay(self.setting.inside)
        price = config.search.complexity_price * self.setting.adaptation.price_scale
        ranked = rank(
            scored,
            diversity_bonus=bonus if config.has("diversity") else 0.0,
            complexity_price=price if config.has("complexity") else 0.0,
            free_energy=config.search.free_energy,
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

    def test_inheritance(self, on_step: Callable[[int, float], None]) -> tuple[TransferCheck, ...]:
        """Give the child that inherited weights served worst a cold twin; none where all did well.

        Both twins, of the child and of the control, are of the reduced size and cost its share.
        """
        suspects = [t for t in self.trials if t.above_frac > OFTEN and t.losses and t.gaps]
        if self.setting.is_fresh or not suspects:
            return ()
        worst = max(suspects, key=lambda t: _mean_loss(t) - _mean_loss(self.control))
        bench = self.bench.reduced(self.bench.config.search.scale)
        steps = self.setting.rungs[0].steps
        child, control = (
            self._cold_nats(bench, t.candidate.formula, steps, on_step)
            for t in (worst, self.control)
        )
        self.steps += bench.charged(2 * steps)
        assert worst.first_nats is not None
        assert self.control.first_nats is not None
        level = bench.config.gates.confidence
        own, inherited = worst.first_nats, self.control.first_nats
        return (
            TransferCheck(
                formula=worst.candidate.formula,
                warm_nats=paired_interval(own, inherited, confidence=level),
                cold_nats=paired_interval(child, control, confidence=level),
                worth_nats=float((control - inherited).mean()),
                above_frac=worst.above_frac,
                steps=2 * steps,
            ),
        )

    def _cold_nats(
        self, bench: Workbench, formula: str, steps: int, on_step: Callable[[int, float], None]
    ) -> Nats:
        twin = bench.fresh_member(formula, "twin", *self.name)
        batches = bench.train_batches("twin", *self.name)
        twin.train(steps, batches, lambda step: warmup(bench.config, step), on_step=on_step)
        return bench.measure(twin.model, bench.searched)


Gather = Callable[[Workbench, Member, SearchState, Setting], Population]
"""Brings a generation's members together; a bench that plants a situation passes its own."""


def gather(bench: Workbench, line: Member, state: SearchState, setting: Setting) -> Population:
    """Ask the search for candidates and give each of them a member."""
    config, plan = bench.config, setting.plan
    state_seen, search, adaptation = _switched(bench, state, setting)
    proposal = propose(
        state_seen,
        parent=line.formula,
        n=setting.population,
        settings=setting.settings,
        search=search,
        adaptation=adaptation,
        rng=generator(config.seed, "propose", plan.phase, plan.attempt, state.generations),
    )
    return Population(bench, line, setting, proposal, state.generations)


def run_generation(
    bench: Workbench,
    line: Member,
    state: SearchState,
    setting: Setting,
    on_step: Callable[[int, float], None],
    gather: Gather = gather,
) -> tuple[Generation, Member, SearchState]:
    """Run one generation and return what it found, the line that goes on, and the search's state.

    After a warm generation the line goes on with the winner's function and weights where one beat
    the control with confidence, else with the control's; either way it keeps the steps it trained
    here. After a fresh one it goes on with its own weights, and with the winner's function.
    """
    began = time.perf_counter()
    population = gather(bench, line, state, setting)
    transfers: tuple[TransferCheck, ...] = ()
    for index, rung in enumerate(setting.rungs):
        population.drop_to(rung.members)
        population.climb(index, rung, on_step)
        if index == 0:
            transfers = population.test_inheritance(on_step)
        if population.coupling is not None and index < len(setting.rungs) - 1:
            population.coupling.fuse(population.members, rung)
    winner = _winner(population)
    for trial in population.alive:
        trial.fate = "won" if trial is winner else "survived"
    generation = _told(population, state, winner, transfers, time.perf_counter() - began)
    if not setting.is_fresh:
        line = (winner or population.control).member
        if population.coupling is not None:
            adopt_shadow(line, population.coupling.consensus)
    elif winner is not None:
        line = line.fork(winner.candidate.formula)
    return generation, line, tell(state, generation)


def _switched(
    bench: Workbench, state: SearchState, setting: Setting
) -> tuple[SearchState, SearchSettings, Adaptation]:
    """Return what proposing goes by, without the mechanisms that are switched off."""
    config, search, adaptation = bench.config, bench.config.search, setting.adaptation
    if not config.has("crossover"):
        search = search.model_copy(update={"crossover": 0.0})
    if not config.has("immigrants"):
        adaptation = adaptation.model_copy(update={"immigrants": 0.0})
    if not config.has("pressure"):
        state = state.model_copy(update={"pressure": Pressure()})
    return state, search, adaptation


def _winner(population: Population) -> Trial | None:
    trials = {t.candidate.formula: t for t in population.alive if t.ranked is not None}

    def is_behind(member: Ranked, best: Ranked) -> bool:
        own, first = (trials[m.candidate.formula].nats for m in (member, best))
        assert own is not None
        assert first is not None
        gap = paired_interval(own, first, confidence=population.bench.config.gates.confidence)
        return gap.low + _surcharge(member, free_energy) > _surcharge(best, free_energy)

    free_energy = population.bench.config.search.free_energy
    won = select_winner(
        [t.ranked for t in trials.values() if t.ranked is not None],
        n_batches=len(population.bench.searched),
        training_noise_nats=_noise(population),
        free_energy=free_energy,
        is_behind=is_behind,
    )
    return trials[won.candidate.formula] if won else None


def _surcharge(member: Ranked, free_energy: float) -> float:
    """Return what a member is judged by beyond its loss (nats a token)."""
    return member.score.judged(free_energy).value - member.score.loss_nats.value


def _noise(population: Population) -> float:
    setting = population.setting
    if not setting.is_fresh:
        return TRAINING_NOISE_NATS
    return early_noise(setting.rungs[-1].total, population.bench.config.budget.steps)


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
    state: SearchState,
    winner: Trial | None,
    transfers: tuple[TransferCheck, ...],
    seconds: float,
) -> Generation:
    setting, coupling = population.setting, population.coupling
    members = tuple(_record(trial) for trial in population.trials)
    functions = [parse(t.candidate.formula) for t in population.trials]
    shares = shares_of_diversity(functions)
    spread = (
        t_interval(shares, confidence=population.bench.config.gates.confidence) if shares else None
    )
    own = population.control.candidate.formula
    fused = coupling.told(population.members) if coupling is not None else {}
    is_fresh = setting.is_fresh
    kept = winner or population.control
    return Generation(
        phase=setting.plan.phase,
        attempt=setting.plan.attempt,
        index=state.generations,
        parent=own,
        members=members,
        winner=winner.candidate.formula if winner else own,
        found=winner is not None,
        front_moved=front_after(state, members, parent=own, noise_nats=_noise(population)),
        proposals=population.proposal.proposals,
        duplicates=population.proposal.duplicates,
        diversity=diversity(functions),
        diversity_ci=spread.high - spread.value if spread else None,
        entropy_nats=_population_entropy(functions) if functions else None,
        transfers=transfers,
        start=setting.settings.start,
        steps=population.bench.charged(population.steps) if is_fresh else population.steps,
        steps_kept=0 if is_fresh else kept.steps,
        skipped=0 if is_fresh else kept.skipped,
        clipped=0 if is_fresh else kept.clipped,
        noise_nats=_noise(population),
        seconds=seconds,
        **fused,
    )


def _population_entropy(functions: list[Expression]) -> float:
    distances = np.zeros((len(functions), len(functions)))
    for i, j in combinations(range(len(functions)), 2):
        distances[i, j] = distances[j, i] = distance(functions[i], functions[j])
    return population_entropy(distances)


def _record(trial: Trial) -> MemberRecord:
    return MemberRecord(
        candidate=trial.candidate,
        score=trial.score,
        rung=trial.rung,
        rank_value=trial.ranked.rank_value if trial.ranked else 0.0,
        novelty=trial.ranked.novelty if trial.ranked else 0.0,
        gaps=tuple(trial.gaps),
        above_frac=trial.above_frac,
        fate=trial.fate,
    )


def _late_slope(losses: list[float]) -> float:
    """Return what the later half of a training from fresh weights gained for e times its steps.

    From its first step on, the loss falls as no later one does; below eight steps it says nothing.
    """
    half = len(losses) // 2
    if half < 4:
        return 0.0
    steps = np.log(np.arange(half, len(losses)) + 1.0)
    return max(0.0, -float(np.polyfit(steps, np.array(losses[half:]), 1)[0]))


def _mean(trial: Trial) -> float:
    assert trial.nats is not None
    return float(trial.nats.mean())


def _mean_loss(trial: Trial) -> float:
    return float(np.mean(trial.losses))


def _rank_value(trial: Trial) -> float:
    assert trial.ranked is not None
    return trial.ranked.rank_value
