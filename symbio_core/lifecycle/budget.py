"""The budget: a hard cap on optimiser steps, and what each phase may take of it. Pure."""

from __future__ import annotations

from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.errors import BudgetTooSmall
from symbio_core.records import RunState
from symbio_core.search.rungs import generation_cost, rung_plan

FINALISTS = 4
"""Contenders of the confirmation at most: the winner and three fixed functions."""
SHORTEST_FINAL = 10
"""Steps of a contender and seed below which a confirmation says nothing."""
CONFIRMING = "oxidation"
"""The phase that ends with the confirmation."""


def confirm_reserve(config: RunConfig) -> int:
    """Return the steps kept aside for the confirmation and the warm trial after it."""
    return round(config.confirm.steps_frac * config.budget.steps)


def steps_for(config: RunConfig, state: RunState) -> tuple[int, int]:
    """Return the steps of the phase at hand, and those of them reserved for the confirmation.

    A phase gets its share of what is left in proportion to the shares of the phases still to come,
    itself included; the reserve of the confirmation is kept aside until it is spent. The sum over
    any sequence of attempts is at most the budget.
    """
    left = max(0, config.budget.steps - state.steps_spent)
    to_come = PHASES[state.phase_index :]
    kept = 0
    if CONFIRMING in to_come and not state.confirmed:
        kept = min(left, confirm_reserve(config))
    shares = [config.phases.of(name).share for name in to_come]
    own = left - kept if len(to_come) == 1 else int((left - kept) * shares[0] / sum(shares))
    reserved = kept if to_come[0] == CONFIRMING else 0
    return own + reserved, reserved


def smallest_budget(config: RunConfig) -> int:
    """Return the fewest steps that buy a full generation in each search phase and a final."""
    low, high = 1, 1
    while not _covers(config, high):
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _covers(config, middle) else (middle + 1, high)
    return low


def check_budget(config: RunConfig) -> None:
    """Refuse a budget that does not cover one full generation in each search phase.

    Raises:
        BudgetTooSmall: with the smallest budget that would do.
    """
    if _covers(config, config.budget.steps):
        return
    raise BudgetTooSmall(
        f"a budget of {config.budget.steps} steps does not cover one full generation in each "
        f"search phase and the confirmation; the smallest that would do is "
        f"{smallest_budget(config)}: use --budget {smallest_budget(config)}"
    )


def _covers(config: RunConfig, steps: int) -> bool:
    config = changed(config, {"budget.steps": steps})
    reserve = confirm_reserve(config)
    final = (reserve - 2 * config.confirm.warm_steps) // (FINALISTS * config.confirm.seeds)
    if final < SHORTEST_FINAL:
        return False
    total = sum(config.phases.of(name).share for name in PHASES)
    for name in PHASES:
        settings = config.phase(name)
        if not settings.population:
            continue
        cost = generation_cost(
            rung_plan(
                settings.population,
                rungs=config.search.rungs,
                rung_steps=settings.rung_steps,
                keep_frac=config.search.keep_frac,
            )
        )
        own = int((steps - reserve) * settings.share / total)
        if cost > config.search.exploration_frac * own:
            return False
    return True
