"""Every number that verdicts may move: its name in words, and its value in a phase. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from symbio_core.config import Mechanism, PhaseSettings, RunConfig
from symbio_core.lifecycle import effective
from symbio_core.records import Adaptation, AppliedChange, PhasePlan
from symbio_core.report.cells import FIRM, MINUS, brief, way

AFTER_DIVERGENCE = "lr_scale after divergence"
"""Stands for `PhasePlan.lr_scale`: a diverged phase halves it, and no verdict moves it back."""
Kind = Literal["factor", "plus", "share", "switch"]


Value = Callable[[RunConfig, PhaseSettings, PhasePlan], float]
"""What a phase's own number is, from the run's settings, the phase's, and its plan."""


@dataclass(frozen=True, slots=True)
class Dial:
    """A number of `Adaptation` as a person knows it."""

    label: str
    kind: Kind
    value: Value
    needs: tuple[Mechanism, ...] = ("search",)
    """Mechanisms without which no phase feels it."""
    warm: bool = False
    """Whether only members that start from the line's own weights feel it."""


def _peak(config: RunConfig, _: PhaseSettings, plan: PhasePlan) -> float:
    return config.optimiser.peak_lr * plan.adaptation.lr_scale * plan.lr_scale


def _clip(config: RunConfig, _: PhaseSettings, plan: PhasePlan) -> float:
    return config.optimiser.clip_norm * plan.adaptation.clip_scale


def _price(config: RunConfig, _: PhaseSettings, plan: PhasePlan) -> float:
    return config.search.complexity_price * plan.adaptation.price_scale


def _patience(config: RunConfig, _: PhaseSettings, plan: PhasePlan) -> float:
    return config.search.patience + plan.adaptation.extra_patience


def _of_phase(read: Callable[[PhaseSettings], float]) -> Value:
    return lambda _, phase, __: read(phase)


def _as_it_stands(setting: str) -> Value:
    return lambda _, __, plan: float(getattr(plan.adaptation, setting))


FUSION: tuple[Mechanism, ...] = ("search", "fusion")
DIALS: dict[str, Dial] = {
    "lr_scale": Dial("peak learning rate", "factor", _peak, ()),
    AFTER_DIVERGENCE: Dial("peak learning rate", "factor", _peak, ()),
    "clip_scale": Dial("gradient clip norm", "factor", _clip, ()),
    "mutation_scale": Dial("mutation rate", "factor", _of_phase(lambda p: p.mutation)),
    "coupling_scale": Dial(
        "coupling K", "factor", _of_phase(lambda p: p.coupling), (*FUSION, "kuramoto"), warm=True
    ),
    "fusion_scale": Dial(
        "strongest fusion pull", "factor", _of_phase(lambda p: p.fusion.max), FUSION, warm=True
    ),
    "price_scale": Dial("price of a node", "factor", _price, ("search", "complexity")),
    "rung_scale": Dial("steps of a first rung", "factor", _of_phase(lambda p: p.rung_steps)),
    "extra_depth": Dial("deepest tree", "plus", _of_phase(lambda p: p.max_depth)),
    "extra_nodes": Dial("largest tree (nodes)", "plus", _of_phase(lambda p: p.max_nodes)),
    "immigrants": Dial(
        "share of candidates drawn afresh",
        "share",
        _as_it_stands("immigrants"),
        ("search", "immigrants"),
    ),
    "open_reserve": Dial("reserve pool open", "switch", _as_it_stands("open_reserve")),
    "reset_consensus": Dial(
        "forget the consensus after a rung",
        "switch",
        _as_it_stands("reset_consensus"),
        FUSION,
        warm=True,
    ),
    "inherit_less": Dial(
        "fresh weights mixed into a child", "share", _as_it_stands("inherit_less"), warm=True
    ),
    "perturb_consensus": Dial(
        "noise on the consensus", "share", _as_it_stands("perturb_consensus"), FUSION, warm=True
    ),
    "extra_patience": Dial("patience (generations)", "plus", _patience),
}
"""Setting of `Adaptation` to what it is called and what it does."""


def value_in(config: RunConfig, plan: PhasePlan, setting: str, moved_to: float) -> float | None:
    """Return a phase's own number were ``setting`` moved to ``moved_to``; None if it feels nothing.

    Args:
        config: the run's settings.
        plan: the attempt, whose other adaptations stay as they are.
        setting: a field of `Adaptation`, or `AFTER_DIVERGENCE`.
        moved_to: its value.
    """
    dial = DIALS.get(setting)
    if dial is None or not _feels(config, plan, dial):
        return None
    if setting == AFTER_DIVERGENCE:
        moved = plan.model_copy(update={"lr_scale": moved_to})
    else:
        adaptation = plan.adaptation.model_copy(update={setting: moved_to})
        moved = plan.model_copy(update={"adaptation": adaptation})
    return float(dial.value(config, effective(config, plan.phase, moved.adaptation), moved))


def _feels(config: RunConfig, plan: PhasePlan, dial: Dial) -> bool:
    settings = config.phase(plan.phase)
    if "search" in dial.needs and not settings.population:
        return False
    cold = dial.warm and settings.start == "fresh"
    return not cold and all(config.has(mechanism) for mechanism in dial.needs)


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
