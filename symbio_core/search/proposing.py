"""Ask: the candidates of the next generation. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from symbio_core.activations import (
    DISTINCT,
    LEAVES,
    RESERVE,
    TRAINED,
    Add,
    Expression,
    KnownFunctions,
    Leaf,
    Limits,
    Mul,
    NoMutation,
    Scale,
    Square,
    canonical,
    crossover,
    distance,
    formula,
    mutate,
    n_nodes,
    overlap,
    parse,
    random_expression,
    rejection,
    small_expressions,
    within,
)
from symbio_core.config import PhaseSettings, SearchSettings
from symbio_core.records import Adaptation, Candidate, Record
from symbio_core.search.pressure import mutation as mutation_under
from symbio_core.search.ranking import top_k, tournament
from symbio_core.search.state import SearchState, levels

FIXED: tuple[Expression, ...] = (
    Leaf("gelu"),
    Leaf("silu"),
    Leaf("relu"),
    Square(Leaf("relu")),
)
"""Founders that stand in every run: the functions that people use."""
ELITE_SHARE = 0.25
"""Largest share of a generation that is re-tested hall of fame."""
TOP = 4
"""Parents that top-k selection draws from."""
TRIES = 30
"""Draws for each place in a generation before it is given up."""
SMALL_NODES = 3
"""Founders, and half of the immigrants while they last, have at most so many nodes."""

Drawn = tuple[Expression, str, tuple[str, ...]]
"""A tree, how it came to be, and the formulas of its parents."""
Draw = Callable[[], Drawn]


class Proposal(Record):
    """A generation's candidates and how hard they were to find.

    proposals − duplicates is the number of candidates that are not elites.
    """

    candidates: tuple[Candidate, ...]
    proposals: int
    """Functions drawn, duplicates included, elites not."""
    duplicates: int
    """Those thrown away because the run knew the function already."""


def propose(
    state: SearchState,
    *,
    parent: str,
    n: int,
    settings: PhaseSettings,
    search: SearchSettings,
    adaptation: Adaptation,
    rng: np.random.Generator,
    pool: Sequence[str] | None = None,
) -> Proposal:
    """Return the candidates of the next generation.

    The first generation of a run holds founders: the fixed functions, their squares and
    products, then small ones as different from each other as can be. Later ones hold up to a
    quarter of elites that may still be better than the line, a share of random immigrants, and
    offspring for the rest.
    All are different functions, none is the parent's, and none but the elites was tried before.

    Args:
        state: what the search knows.
        parent: formula of the main line, the control of this generation.
        n: candidates wanted; fewer come back when the space within the limits is exhausted.
        settings: the phase's numbers, adaptations already applied.
        search: rates and selection.
        adaptation: share of immigrants, and whether the reserve pool is open.
        rng: the generation's own stream.
        pool: leaves to build from; empty takes the run's own.

    Source:
        Bingham, Macke & Miikkulainen (2020), arXiv 2002.07224, for trees under mutation and
        crossover; Grefenstette (1992), Genetic algorithms for changing environments, for random
        immigrants.
    """
    leaves = tuple(pool or (LEAVES + RESERVE if adaptation.open_reserve >= 0.5 else LEAVES))
    limits = Limits(max_depth=settings.max_depth, max_nodes=settings.max_nodes)
    nursery = _Nursery(parent, n, leaves, limits, rng)
    if state.generations == 0:
        nursery.know(state.known)
        nursery.offer_each(_founders(parent, n, leaves, limits))
        nursery.fill(n, nursery.immigrant)
    else:
        for elite in _elites(state, parent, math.floor(ELITE_SHARE * n), limits):
            nursery.retest(elite)
        nursery.know(state.known)
        breeders = _Breeders(state, parent, settings, search)
        nursery.fill(_whole(adaptation.immigrants * n, rng), nursery.immigrant)
        nursery.fill(n, lambda: breeders.offspring(rng, limits, leaves))
    # Where chance found too little, what is left of the small functions is simply gone through.
    nursery.offer_each((expr, "immigrant", ()) for expr in nursery.untried())
    return nursery.proposal()


class _Nursery:
    """Candidates gathered so far, and every function that may not come again."""

    def __init__(
        self,
        parent: str,
        n: int,
        pool: tuple[str, ...],
        limits: Limits,
        rng: np.random.Generator,
    ) -> None:
        self.n = n
        self.pool = pool
        self.limits = limits
        self.rng = rng
        self.parent = parse(parent)
        self.seen = KnownFunctions([self.parent])
        self.candidates: list[Candidate] = []
        self.proposals = 0
        self.duplicates = 0

    @property
    def is_full(self) -> bool:
        return len(self.candidates) >= self.n

    def know(self, formulas: Iterable[str]) -> None:
        for known in formulas:
            self.seen.add(parse(known))

    def retest(self, elite: str) -> None:
        expr = parse(elite)
        if self.seen.add(expr):
            self._take(elite, expr, "elite", ())

    def offer(self, drawn: Drawn) -> bool:
        """Take a drawn function in if it is new; count it either way."""
        expr, mutation, parents = drawn
        expr = self._turned(expr)
        self.proposals += 1
        if not self.seen.add(expr):
            self.duplicates += 1
            return False
        self._take(formula(expr), expr, mutation, parents)
        return True

    def offer_each(self, drawn: Iterable[Drawn]) -> None:
        for one in drawn:
            if self.is_full:
                return
            self.offer(one)

    def fill(self, places: int, draw: Draw) -> None:
        """Draw until so many more places are taken, with a bounded number of tries."""
        for _ in range(min(places, self.n - len(self.candidates))):
            for _ in range(TRIES):
                try:
                    if self.offer(draw()):
                        break
                except NoMutation:
                    continue

    def immigrant(self) -> Drawn:
        """Draw a function from nothing: in half of the cases a small one not tried yet."""
        if self.rng.random() < 0.5:
            small = self.untried()
            if small:
                return small[int(self.rng.integers(len(small)))], "immigrant", ()
        return random_expression(self.rng, self.limits, self.pool), "immigrant", ()

    def untried(self) -> list[Expression]:
        return [e for e in _small(self.pool, self.limits) if e not in self.seen]

    def proposal(self) -> Proposal:
        return Proposal(
            candidates=tuple(self.candidates),
            proposals=self.proposals,
            duplicates=self.duplicates,
        )

    def _turned(self, expr: Expression) -> Expression:
        # A function and its mirror image are equals to an FFN, whose output matrix can turn the
        # sign; weights that the parent has shaped suit the one that goes its way where their inputs
        # lie. gelu(x)−0.4·x² goes with gelu(x) under N(0, 1), yet against it there, and cost 5 nats
        # after ten steps on its weights where its mirror image cost 0.5.
        mirror = canonical(Scale(-1.0, expr))
        against = overlap(expr, self.parent, TRAINED) < 0.0 and within(mirror, self.limits)
        return mirror if against else expr

    def _take(self, name: str, expr: Expression, mutation: str, parents: tuple[str, ...]) -> None:
        self.candidates.append(
            Candidate(formula=name, mutation=mutation, parents=parents, nodes=n_nodes(expr))
        )


class _Breeders:
    """Functions that may have offspring, best first, and how offspring come about."""

    def __init__(
        self, state: SearchState, parent: str, settings: PhaseSettings, search: SearchSettings
    ) -> None:
        self.ordered = _breeding_order(state, parent)
        self.mutation = mutation_under(state.pressure, settings.mutation)
        self.search = search

    def offspring(self, rng: np.random.Generator, limits: Limits, pool: Sequence[str]) -> Drawn:
        """Return a changed function.

        Crossing and mutating are drawn with their probabilities until at least one is to happen:
        offspring that is neither crossed nor mutated would be its parent over again.
        """
        first = self._pick(self.ordered, rng)
        others = [name for name in self.ordered if name != first]
        crossed, mutated = self._changes(rng, may_cross=bool(others))
        expr = parse(first)
        names: list[str] = []
        parents: tuple[str, ...] = (first,)
        if crossed:
            second = self._pick(others, rng)
            try:
                expr = crossover(expr, parse(second), rng, limits)
                names, parents = ["crossover"], (first, second)
            except NoMutation:
                mutated = True
        if mutated:
            expr, name = mutate(expr, rng, limits, pool)
            names.append(name)
        return expr, " + ".join(names), parents

    def _pick(self, ordered: Sequence[str], rng: np.random.Generator) -> str:
        if self.search.selection == "tournament":
            return tournament(ordered, rng)
        best = top_k(ordered, TOP)
        return best[int(rng.integers(len(best)))]

    def _changes(self, rng: np.random.Generator, *, may_cross: bool) -> tuple[bool, bool]:
        crossing = self.search.crossover if may_cross else 0.0
        if crossing == 0.0 or self.mutation == 0.0:
            return crossing > 0.0, crossing == 0.0
        while True:
            crossed, mutated = rng.random(2) < (crossing, self.mutation)
            if crossed or mutated:
                return bool(crossed), bool(mutated)


def _breeding_order(state: SearchState, parent: str) -> tuple[str, ...]:
    # The hall of a young search is short, so the last generation's finishers breed as well.
    level = levels(state)
    latest = [
        t.candidate.formula
        for t in state.lineage
        if t.generation == state.generations - 1 and t.finished
    ]
    names = dict.fromkeys([parent, *(entry.formula for entry in state.hall), *latest])
    return tuple(sorted(names, key=lambda name: level[name].value if name in level else 0.0))


def _elites(state: SearchState, parent: str, places: int, limits: Limits) -> list[str]:
    """Return hall members that may still be better than the line, most promising first."""
    level = levels(state)
    line = level[parent].value if parent in level else 0.0
    hopeful = [
        entry
        for entry in state.hall
        if entry.formula != parent
        and entry.loss_nats.low < line
        and within(parse(entry.formula), limits)
    ]
    hopeful.sort(key=lambda entry: entry.loss_nats.low)
    return [entry.formula for entry in top_k(hopeful, places)]


def _founders(parent: str, n: int, pool: Sequence[str], limits: Limits) -> Iterator[Drawn]:
    """Yield the fixed functions, their squares and products, then small ones far from all those."""
    chosen = [parse(parent)]
    for expr in FIXED:
        if distance(expr, chosen[0]) > DISTINCT and within(expr, limits):
            chosen.append(expr)
            yield expr, "founder", ()
    for expr in _compositions(pool):
        is_new = min(distance(expr, other) for other in chosen) > DISTINCT
        if is_new and within(expr, limits):
            chosen.append(expr)
            yield expr, "founder", ()
    left = [e for e in _small(pool, limits) if not isinstance(e, Add)]
    while left and len(chosen) <= n:
        farthest = max(left, key=lambda e: min(distance(e, other) for other in chosen))
        left.remove(farthest)
        if min(distance(farthest, other) for other in chosen) > DISTINCT:
            chosen.append(farthest)
            yield farthest, "founder", ()


def _compositions(pool: Sequence[str]) -> Iterator[Expression]:
    """Yield the squares of what people use, then its products by pairs."""
    leaves = [Leaf(name) for name in ("gelu", "silu", "relu") if name in pool]
    yield from (Square(leaf) for leaf in leaves)
    yield from (canonical(Mul(a, b)) for a, b in combinations(leaves, 2))


def _small(pool: Sequence[str], limits: Limits) -> list[Expression]:
    nodes = min(SMALL_NODES, limits.max_nodes)
    return [
        expr
        for expr in small_expressions(pool, nodes)
        if within(expr, limits) and rejection(expr) is None
    ]


def _whole(expected: float, rng: np.random.Generator) -> int:
    """Round to a whole number that is right on average."""
    return math.floor(expected + rng.random())
