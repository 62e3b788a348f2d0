"""Six phases as data, the budget, plan and decide, and the journal's replay. Pure."""

from symbio_core.lifecycle.best import best_of, better
from symbio_core.lifecycle.budget import (
    check_budget,
    confirm_steps_for,
    final_steps,
    generation_price,
    smallest_budget,
    steps_for,
)
from symbio_core.lifecycle.decide import Choice, decide
from symbio_core.lifecycle.phases import adapt, answered, apply, effective
from symbio_core.lifecycle.plan import plan
from symbio_core.lifecycle.replay import Folded, Pending, fold, replay, step
from symbio_core.lifecycle.state import advance, line_points

__all__ = [
    "Choice",
    "Folded",
    "Pending",
    "adapt",
    "advance",
    "answered",
    "apply",
    "best_of",
    "better",
    "check_budget",
    "confirm_steps_for",
    "decide",
    "effective",
    "final_steps",
    "fold",
    "generation_price",
    "line_points",
    "plan",
    "replay",
    "smallest_budget",
    "step",
    "steps_for",
]
