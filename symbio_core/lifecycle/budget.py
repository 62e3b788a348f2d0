"""The budget: a hard cap on optimiser steps, and what each phase may take of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from symbio_core.config import PHASES, PhaseSettings, RunConfig
from symbio_core.errors import BudgetTooSmall
from symbio_core.records import RunState
from symbio_core.search.rungs import generation_cost, rung_plan

FINALISTS = 4
"""Contenders of the confirmation at most: the winner and three fixed functions."""
SHORTEST_FINAL = 10
"""Steps of a contender and seed below which a confirmation says nothing."""
CONFIRMING = "oxidation"
"""The phase that ends with the confirmation."""


def steps_for(config: RunConfig, state: RunState) -> int:
    """Return all the steps that the phase at hand may spend, its confirmation included.

    A phase gets its share of what is left in proportion to the shares of the phases still to come,
    itself included, and at least one step while there is one; the reserve of the confirmation is
    kept aside until it is spent. The sum over any sequence of attempts is at most the budget.
    """
    to_come = PHASES[state.phase_index :]
    if not to_come:
        return 0
    left = max(0, config.budget.steps - state.steps_spent)
    kept = _kept(config, state)
    return _own(config, left - kept, to_come) + confirm_steps_for(config, state)


def confirm_steps_for(config: RunConfig, state: RunState) -> int:
    """Return the steps of the phase at hand that are reserved for confirmation and warm trial."""
    confirms = PHASES[state.phase_index : state.phase_index + 1] == (CONFIRMING,)
    return _kept(config, state) if confirms else 0


def reserve(config: RunConfig, steps: int) -> int:
    """Return what a budget of ``steps`` keeps aside for the confirmation and its warm trial.

    The warm trial trains two members: the current line, and the best contender started from it.
    """
    if not config.has("final"):
        return 0
    return int(_exact(config.confirm.steps_frac) * steps) + 2 * config.confirm.warm_steps


def final_steps(config: RunConfig, kept: int, entries: int) -> int:
    """Return the steps that each of ``entries`` contenders may train with each seed.

    Args:
        config: the run's settings.
        kept: steps of the run's own model that are kept for final and warm trial.
        entries: contenders.
    """
    cost = config.step_cost(config.confirm.scale)
    return int((kept - 2 * config.confirm.warm_steps) / cost / (entries * config.confirm.seeds))


def smallest_budget(config: RunConfig) -> int:
    """Return the fewest steps that buy a full generation in each search phase and a final."""
    low, high = 1, 1
    while shortfall(config, high) is not None:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        if shortfall(config, middle) is None:
            high = middle
        else:
            low = middle + 1
    return high


def check_budget(config: RunConfig) -> None:
    """Refuse a budget that does not cover one full generation in each search phase and a final.

    Raises:
        BudgetTooSmall: with what is short, and the smallest budget that would do.
    """
    short = shortfall(config, config.budget.steps)
    if short is None:
        return
    enough = smallest_budget(config)
    raise BudgetTooSmall(
        f"budget of {config.budget.steps} steps is too small: {short}; "
        f"the smallest that would do is {enough}; use --budget {enough}"
    )


def shortfall(config: RunConfig, steps: int) -> str | None:
    """Say what an untroubled life of ``steps`` steps could not pay for; None if it pays for all.

    With ``search.exploration_frac`` at 0 the search is switched off and needs nothing.
    """
    kept = reserve(config, steps)
    seeds = config.confirm.seeds
    final = final_steps(config, kept, FINALISTS)
    if config.has("final") and final < SHORTEST_FINAL:
        return (
            f"the confirmation could train {FINALISTS} contenders with {seeds} seeds for {final} "
            f"steps each and needs {SHORTEST_FINAL}"
        )
    pool = steps - kept
    for index, name in enumerate(PHASES):
        own = _own(config, pool, PHASES[index:])
        if own < 1:
            return f"no step would be left for {name}"
        settings = config.phase(name)
        cost = generation_price(config, settings, settings.population)
        # The same comparison that a phase makes before it buys a generation, to the last bit.
        allowance = config.search.exploration_frac * own
        searches = config.search.exploration_frac > 0.0 and config.has("search")
        if cost > allowance and searches:
            return f"{name} could explore for {int(allowance)} steps and a generation costs {cost}"
        pool -= own
    return None


def _kept(config: RunConfig, state: RunState) -> int:
    if state.confirmed or CONFIRMING not in PHASES[state.phase_index :]:
        return 0
    left = max(0, config.budget.steps - state.steps_spent)
    return min(left, reserve(config, config.budget.steps))


def _own(config: RunConfig, pool: int, to_come: Sequence[str]) -> int:
    # At least one step, so that a tiny share never ends a run that has steps left.
    if pool <= 0:
        return 0
    if len(to_come) == 1:
        return pool
    shares = [_exact(config.phases.of(name).share) for name in to_come]
    return max(1, int(pool * shares[0] / sum(shares)))


def generation_price(config: RunConfig, settings: PhaseSettings, population: int) -> int:
    """Return the most steps that a generation may cost, in steps of the run's own model.

    A fresh one trains a smaller model. A warm one may need cold twins of one child and its control,
    and with fusion a twin that nothing pulls.

    Args:
        config: the run's settings.
        settings: the phase's numbers, adaptations applied.
        population: candidates.
    """
    rungs = rung_plan(
        population,
        rungs=config.search.rungs,
        rung_steps=settings.rung_steps,
        keep_frac=config.search.keep_frac,
    )
    reduced = config.step_cost(config.search.scale)
    if not rungs or settings.start == "fresh":
        return generation_cost(rungs, cost=reduced)
    twins = math.ceil(2 * rungs[0].steps * reduced - 1e-9)
    return generation_cost(rungs, extra=int(config.has("fusion"))) + twins


def _exact(number: float) -> Fraction:
    # The decimal that a person wrote: 4% of 1000 is 40, and more steps never buy less.
    return Fraction(str(number))
