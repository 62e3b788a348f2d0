"""Four kinds of standing still, each told by itself; none hides another. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from symbio_core.config import GateSettings
from symbio_core.monitors import robust_slope
from symbio_core.records import Change, Generation, Outcome, Verdict

EXHAUSTED = 0.8
"""Share of offspring that are known functions, above which the space is exhausted (0..1)."""
DIVERSE = 0.3
"""Functional diversity at which a population may still be preparing a jump (0..1)."""
LOCKED = 0.9
"""Kuramoto order parameter above which members run as one (0..1)."""
SKIPPED = 0.1
"""Share of steps skipped as spikes that says the learning rate is wrong (0..1)."""
CLIPPED = 0.9
"""Share of clipped steps that says so; some clipping is normal (0..1)."""
FLAT_GENERATIONS = 2
"""Generations without a find before stasis is called that."""


def judge_plateau(
    outcome: Outcome, history: Sequence[Generation], gates: GateSettings
) -> tuple[Verdict, ...]:
    """Return all four verdicts.

    Args:
        outcome: what the attempt measured.
        history: generations of earlier attempts, oldest first.
        gates: confidence.
    """
    return (
        _exhaustion(outcome),
        _equilibrium(outcome, history),
        _stagnation(outcome, gates),
        _mismatch(outcome),
    )


def _exhaustion(outcome: Outcome) -> Verdict:
    """Most offspring are known functions and the Pareto front stands still."""
    proposals = sum(g.proposals for g in outcome.generations)
    duplicates = sum(g.duplicates for g in outcome.generations)
    share = duplicates / proposals if proposals else 0.0
    moved = any(g.front_moved for g in outcome.generations)
    failed = share > EXHAUSTED and not moved
    reason = f"{share:.0%} of {proposals} offspring were functions known already"
    return _verdict(
        "activation space exhaustion",
        "share of offspring that were known (0..1)",
        share,
        EXHAUSTED,
        not failed,
        reason if outcome.generations else "no search in this phase",
        Change(setting="open_reserve", op="set", value=1.0),
        Change(setting="extra_depth", op="add", value=1.0),
        Change(setting="extra_nodes", op="add", value=3.0),
    )


def _equilibrium(outcome: Outcome, history: Sequence[Generation]) -> Verdict:
    """Nothing was found for a while, but the population is diverse: patience, with a limit."""
    recent = [*history, *outcome.generations][-FLAT_GENERATIONS:]
    applies = bool(outcome.generations) and len(recent) == FLAT_GENERATIONS
    diversity = recent[-1].diversity if recent else 0.0
    rising = applies and recent[-1].diversity >= recent[0].diversity
    flat = applies and not any(g.found for g in recent)
    failed = flat and (diversity >= DIVERSE or rising)
    if not outcome.generations:
        reason = "no search in this phase"
    elif failed:
        reason = "nothing better for a while, yet candidates differ: stasis before a jump is normal"
    else:
        reason = "the search is not in stasis"
    return _verdict(
        "punctuated equilibrium",
        "functional diversity while nothing is found (0..1)",
        diversity,
        DIVERSE,
        not failed,
        reason,
        Change(setting="extra_patience", op="add", value=1.0),
    )


def _stagnation(outcome: Outcome, gates: GateSettings) -> Verdict:
    """The members run as one and the loss does not fall: the consensus holds them fast."""
    generations = [g for g in outcome.generations if g.sync]
    if not generations:
        return _verdict(
            "consensus stagnation",
            "order parameter r (0..1)",
            0.0,
            LOCKED,
            True,
            "no fusion in this phase",
        )
    r = generations[-1].sync[-1]
    points = outcome.points
    slope = robust_slope(
        [p.line_step for p in points], [p.val_nats for p in points], confidence=gates.confidence
    )
    failed = r > LOCKED and not slope.below_zero and not generations[-1].found
    reason = f"members {'run as one' if r > LOCKED else 'keep their own pace'} (r = {r:.2f})"
    reason += ", and the loss does not surely fall" if failed else ""
    return _verdict(
        "consensus stagnation",
        "order parameter r (0..1)",
        r,
        LOCKED,
        not failed,
        reason,
        Change(setting="perturb_consensus", op="set", value=0.05),
        Change(setting="coupling_scale", op="scale", value=0.5),
        Change(setting="fusion_scale", op="scale", value=0.5),
        Change(setting="mutation_scale", op="scale", value=1.25),
    )


def _mismatch(outcome: Outcome) -> Verdict:
    """Spikes, endless clipping, or a probe that another learning rate wins."""
    skipped = outcome.skipped / max(1, outcome.line_steps)
    clipped = outcome.clipped / max(1, outcome.line_steps)
    faster = slower = False
    if outcome.lr_probe is not None:
        half, same, double = outcome.lr_probe
        slower = half < same - outcome.lr_probe_ci and half <= double
        faster = double < same - outcome.lr_probe_ci and double < half
    spiky = skipped >= SKIPPED or clipped >= CLIPPED
    if faster and not spiky:
        reason, change = "a probe at twice the learning rate does better", 1.5
    elif spiky:
        reason = f"{skipped:.0%} of the steps were skipped as spikes, {clipped:.0%} clipped"
        change = 0.5
    elif slower:
        reason, change = "a probe at half the learning rate does better", 0.5
    else:
        reason, change = f"{skipped:.0%} of the steps were skipped, {clipped:.0%} clipped", 1.0
    changes = [Change(setting="lr_scale", op="scale", value=change)]
    if spiky:
        changes.append(Change(setting="clip_scale", op="scale", value=0.7))
    return _verdict(
        "learning-rate mismatch",
        "share of steps skipped as spikes (0..1)",
        skipped,
        SKIPPED,
        not (spiky or faster or slower),
        reason,
        *changes,
    )


def _verdict(
    name: str,
    metric: str,
    value: float,
    threshold: float,
    passed: bool,
    reason: str,
    *changes: Change,
) -> Verdict:
    return Verdict(
        gate="plateau",
        name=name,
        metric=metric,
        value=value,
        threshold=threshold,
        passed=passed,
        reason=reason,
        changes=changes,
    )
