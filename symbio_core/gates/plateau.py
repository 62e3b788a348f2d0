"""Four kinds of standing still, each told by itself; none hides another. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symbio_core.config import GateSettings
from symbio_core.monitors import paired_interval, robust_slope
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
RISING = 0.05
"""Gain of diversity that counts as a rise (0..1)."""
OSCILLATORS = 3
"""Fewest members, the control among them, whose synchrony means anything."""
ANNEALING_NATS = 0.05
"""What half the learning rate has to save beyond doubt in a short probe (nats a token).

Any lower rate lowers the loss at once, by 0.005 to 0.014 in trials where it cost 0.02 to 0.07 by
the end of the run: a short probe measures annealing, so only a far larger gain is believed."""
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
    """Nothing was found for a while, but the population is diverse: patience, with a limit.

    It fails only so that its response is applied; the limit is the bound of `extra_patience`.
    """
    recent = [*history, *outcome.generations][-FLAT_GENERATIONS:]
    diversity = recent[-1].diversity if recent else 0.0
    applies = bool(outcome.generations) and len(recent) == FLAT_GENERATIONS
    rising = applies and diversity > recent[0].diversity + RISING
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
    name, metric = "consensus stagnation", "order parameter r of the members (0..1)"
    r = _last_sync(outcome.generations)
    if r is None:
        reason = "too few members at a time" if outcome.generations else "no search in this phase"
        return _verdict(name, metric, 0.0, LOCKED, True, reason)
    locked = r > LOCKED
    failed = locked and not outcome.generations[-1].found and not _falls(outcome, gates)
    reason = f"members {'run as one' if locked else 'keep their own pace'} (r = {r:.2f})"
    if locked:
        reason += (
            ", and the loss does not surely fall" if failed else ", and yet something gets better"
        )
    return _verdict(
        name,
        metric,
        r,
        LOCKED,
        not failed,
        reason,
        Change(setting="perturb_consensus", op="set", value=0.05),
        Change(setting="coupling_scale", op="scale", value=0.5),
        Change(setting="fusion_scale", op="scale", value=0.5),
        Change(setting="mutation_scale", op="scale", value=1.25),
    )


def _last_sync(generations: Sequence[Generation]) -> float | None:
    """Return r after the last rung that had oscillators enough: two may agree by chance."""
    if not generations:
        return None
    last = generations[-1]
    oscillators = [
        1 + sum(member.rung >= rung for member in last.members) for rung in range(len(last.sync))
    ]
    told = [r for r, n in zip(last.sync, oscillators, strict=True) if n >= OSCILLATORS]
    return told[-1] if told else None


def _falls(outcome: Outcome, gates: GateSettings) -> bool:
    """Whether the line's validation loss surely fell, by its slope or batch by batch."""
    points = outcome.points
    slope = robust_slope(
        [p.line_step for p in points], [p.val_nats for p in points], confidence=gates.confidence
    )
    start, end = np.array(outcome.start.val_nats), np.array(outcome.end.val_nats)
    if start.shape != end.shape or start.size < 2:
        return slope.below_zero
    change = paired_interval(end, start, confidence=gates.confidence)
    return slope.below_zero or change.below_zero


def _mismatch(outcome: Outcome) -> Verdict:
    """Spikes, endless clipping, or a probe that another learning rate wins."""
    skipped = outcome.skipped / max(1, outcome.line_steps)
    clipped = outcome.clipped / max(1, outcome.line_steps)
    gain, factor = _probe_gain(outcome)
    changes: tuple[Change, ...] = (Change(setting="lr_scale", op="scale", value=0.5),)
    metric, value, threshold = "share of steps skipped as spikes (0..1)", skipped, SKIPPED
    spiky = skipped >= SKIPPED or clipped > CLIPPED
    if spiky:
        if skipped < SKIPPED:
            metric, value, threshold = "share of clipped steps (0..1)", clipped, CLIPPED
        reason = f"{skipped:.0%} of the steps were skipped as spikes, {clipped:.0%} clipped"
        changes += (Change(setting="clip_scale", op="scale", value=0.7),)
    elif gain > outcome.lr_probe_ci:
        metric = "loss that a probe at another learning rate saves (nats a token)"
        value, threshold = gain, outcome.lr_probe_ci
        reason = f"a probe at {factor} the learning rate does better by {gain:.4f} nats a token"
        if factor == "twice":
            changes = (Change(setting="lr_scale", op="scale", value=1.5),)
    else:
        reason = f"{skipped:.0%} of the steps were skipped as spikes, {clipped:.0%} clipped"
        reason += "" if outcome.lr_probe is None else "; no other learning rate surely does better"
        changes = ()
    passed = not changes
    return _verdict("learning-rate mismatch", metric, value, threshold, passed, reason, *changes)


def _probe_gain(outcome: Outcome) -> tuple[float, str]:
    """Return what the better of the other two rates saves (nats a token), and which it is."""
    if outcome.lr_probe is None:
        return 0.0, "half"
    half, same, double = outcome.lr_probe
    # Nothing comes first, so that a difference that is no number never exceeds it.
    return max((0.0, "half"), (same - half - ANNEALING_NATS, "half"), (same - double, "twice"))


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
