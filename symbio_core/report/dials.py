"""Every number that verdicts may move: its name in words, and its value in a phase. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from symbio_core.config import PhaseSettings, RunConfig
from symbio_core.lifecycle import effective
from symbio_core.records import Adaptation, AppliedChange, PhasePlan
from symbio_core.report.cells import FIRM, MINUS, brief, way

AFTER_DIVERGENCE = "lr_scale after divergence"
"""Stands for `PhasePlan.lr_scale`: a diverged phase halves it, and no verdict moves it back."""
Kind = Literal["factor", "plus", "share", "switch"]


@dataclass(frozen=True, slots=True)
class Dial:
    """A number of `Adaptation` as a person knows it."""

    label: str
    kind: Kind
    value: Callable[[RunConfig, PhaseSettings, PhasePlan], float]
    """What the phase's own number is under its plan."""
    searching: bool = True
    """Whether only phases that search feel it."""


def _peak(config: RunConfig, plan: PhasePlan) -> float:
    return config.optimiser.peak_lr * plan.adaptation.lr_scale * plan.lr_scale


DIALS: dict[str, Dial] = {
    "lr_scale": Dial(
        "peak learning rate", "factor", lambda config, _, plan: _peak(config, plan), False
    ),
    AFTER_DIVERGENCE: Dial(
        "peak learning rate", "factor", lambda config, _, plan: _peak(config, plan), False
    ),
    "clip_scale": Dial(
        "gradient clip norm",
        "factor",
        lambda config, _, plan: config.optimiser.clip_norm * plan.adaptation.clip_scale,
        False,
    ),
    "mutation_scale": Dial("mutation rate", "factor", lambda _, phase, __: phase.mutation),
    "coupling_scale": Dial("coupling K", "factor", lambda _, phase, __: phase.coupling),
    "fusion_scale": Dial("strongest fusion pull", "factor", lambda _, phase, __: phase.fusion.max),
    "price_scale": Dial(
        "price of a node",
        "factor",
        lambda config, _, plan: config.search.complexity_price * plan.adaptation.price_scale,
    ),
    "rung_scale": Dial("steps of a first rung", "factor", lambda _, phase, __: phase.rung_steps),
    "extra_depth": Dial("deepest tree", "plus", lambda _, phase, __: phase.max_depth),
    "extra_nodes": Dial("largest tree (nodes)", "plus", lambda _, phase, __: phase.max_nodes),
    "immigrants": Dial(
        "share of candidates drawn afresh", "share", lambda _, __, plan: plan.adaptation.immigrants
    ),
    "open_reserve": Dial(
        "reserve pool open", "switch", lambda _, __, plan: plan.adaptation.open_reserve
    ),
    "reset_consensus": Dial(
        "forget the consensus after a rung",
        "switch",
        lambda _, __, plan: plan.adaptation.reset_consensus,
    ),
    "inherit_less": Dial(
        "fresh weights mixed into a child",
        "share",
        lambda _, __, plan: plan.adaptation.inherit_less,
    ),
    "perturb_consensus": Dial(
        "noise on the consensus", "share", lambda _, __, plan: plan.adaptation.perturb_consensus
    ),
    "extra_patience": Dial(
        "patience (generations)",
        "plus",
        lambda config, _, plan: config.search.patience + plan.adaptation.extra_patience,
    ),
}
"""Setting of `Adaptation` to what it is called and what it does."""


def value_in(config: RunConfig, plan: PhasePlan, setting: str, moved_to: float) -> float | None:
    """Return a phase's own number were ``setting`` moved to ``moved_to``; None if it has none.

    Args:
        config: the run's settings.
        plan: the attempt, whose other adaptations stay as they are.
        setting: a field of `Adaptation`, or `AFTER_DIVERGENCE`.
        moved_to: its value.
    """
    dial = DIALS.get(setting)
    if dial is None or (dial.searching and not config.phase(plan.phase).population):
        return None
    if setting == AFTER_DIVERGENCE:
        moved = plan.model_copy(update={"lr_scale": moved_to})
    else:
        adaptation = plan.adaptation.model_copy(update={setting: moved_to})
        moved = plan.model_copy(update={"adaptation": adaptation})
    return float(dial.value(config, effective(config, plan.phase, moved.adaptation), moved))


def position(plan: PhasePlan, setting: str) -> float | None:
    """Return where ``setting`` stands under a plan; None where it is unknown."""
    if setting == AFTER_DIVERGENCE:
        return plan.lr_scale
    known = setting in Adaptation.model_fields
    return float(getattr(plan.adaptation, setting)) if known else None


def label(setting: str) -> str:
    """Return what a person calls the number behind a setting."""
    return DIALS[setting].label if setting in DIALS else setting.replace("_", " ")


def told(setting: str, value: float) -> str:
    """Return a phase's own number as a person writes it."""
    kind = DIALS[setting].kind if setting in DIALS else None
    if kind == "switch":
        return "yes" if value >= 0.5 else "no"
    return f"{value:.0%}" if kind == "share" else brief(value)


def path(setting: str, before: float, after: float) -> str:
    """Return how a phase's own number moved: `0.50 → 0.63`, `10% → 30%` or `no → yes`."""
    kind = DIALS[setting].kind if setting in DIALS else None
    if kind in ("switch", "share"):
        return f"{told(setting, before)}{FIRM}→{FIRM}{told(setting, after)}"
    return way(before, after)


def move(change: AppliedChange) -> str:
    """Return the step of a change: `× 1.25`, `+3`, `10% → 30%` or `no → yes`."""
    kind = DIALS[change.setting].kind if change.setting in DIALS else None
    if kind == "factor" and change.before:
        return f"×{FIRM}{change.after / change.before:.3g}"
    if kind == "plus":
        return f"{change.after - change.before:+g}".replace("-", MINUS)
    return path(change.setting, change.before, change.after)


def in_words(change: AppliedChange) -> str:
    """Return a change as a person says it: `mutation rate × 1.25`."""
    return f"{label(change.setting)} {move(change)}"
