"""Four kinds of standing still, each told by itself; none hides another. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from symbio_core.config import GateSettings
from symbio_core.gates.evidence import repeated, share_interval
from symbio_core.gates.expected import POINTS_NEEDED, course_of
from symbio_core.gates.responses import beside_responses
from symbio_core.monitors import paired_interval, robust_slope
from symbio_core.records import Change, EvalPoint, Generation, Interval, Outcome, Verdict

EXHAUSTED = 0.8
"""Share of offspring that are known functions, above which the space is exhausted (0..1)."""
USUAL = 0.65
"""Share that is surely exceeded as well: small pools of healthy runs had about as much (0..1)."""
DIVERSE = 0.3
"""Functional diversity at which a population may still be preparing a jump (0..1)."""
LOCKED = 0.9
"""Kuramoto order parameter above which members run as one (0..1)."""
SKIPPED = 0.1
"""Share of steps skipped as spikes that says the learning rate is wrong (0..1)."""
CLIPPED = 0.9
"""Share of clipped steps beside which half the learning rate has to save less (0..1)."""
STILL = 0.25
"""Share of the expected pace that a line surely has to miss to stand still (0..1).

Healthy stretches at a constant learning rate had 0.7 to 1.8 of it, falling ones 0.9 to 6."""
RISING = 0.05
"""Gain of diversity that counts as a rise (0..1)."""
OSCILLATORS = 3
"""Fewest members, the control among them, whose synchrony means anything."""
ANNEALING_NATS = 0.05
"""What half the learning rate has to save beyond doubt in a short probe (nats a token).

Any lower rate lowers the loss at once, by 0.005 to 0.014 in trials where it cost 0.02 to 0.07 by
the end of the run: a short probe measures annealing, so only a far larger gain is believed."""
ANNEALED_NATS = 0.014
"""What annealing alone saves in a short probe at half the learning rate, at most (nats a token)."""
NO_SEARCH = "no search in this phase"
FLAT_GENERATIONS = 2
"""Generations without a find before stasis is called that."""


def judge_plateau(
    outcome: Outcome,
    history: Sequence[Generation],
    gates: GateSettings,
    earlier: Sequence[EvalPoint] = (),
) -> tuple[Verdict, ...]:
    """Return all four verdicts, each from its own evidence alone.

    Args:
        outcome: what the attempt measured.
        history: generations of earlier attempts, oldest first.
        gates: confidence.
        earlier: evaluations of the line before the attempt; they say how far the loss should have
            fallen at the attempt's learning rate. Without them a line is flat that does not fall.
    """
    return (
        *judge_standstill(outcome, history, gates, earlier),
        judge_rate(outcome, gates),
    )


def judge_standstill(
    outcome: Outcome,
    history: Sequence[Generation],
    gates: GateSettings,
    earlier: Sequence[EvalPoint] = (),
) -> tuple[Verdict, ...]:
    """Return the three verdicts on a search that stands still; see `judge_plateau`."""

    def judge(outcome: Outcome, history: Sequence[Generation]) -> tuple[Verdict, ...]:
        return (
            _exhaustion(outcome, gates),
            _equilibrium(outcome, history, earlier, gates),
            _stagnation(outcome, earlier, gates),
        )

    return beside_responses(judge, outcome, history)


def judge_rate(outcome: Outcome, gates: GateSettings) -> Verdict:
    """Return the verdict on the learning rate; see `judge_plateau`."""
    (verdict,) = beside_responses(lambda outcome, _: (_mismatch(outcome, gates),), outcome, ())
    return verdict


def _exhaustion(outcome: Outcome, gates: GateSettings) -> Verdict:
    """Most offspring are known functions, surely more than usual, and the front stands still."""
    proposals = sum(g.proposals for g in outcome.generations)
    duplicates = sum(g.duplicates for g in outcome.generations)
    share = share_interval(duplicates, proposals, confidence=gates.confidence)
    moved = any(g.front_moved for g in outcome.generations)
    failed = share.value > EXHAUSTED and share.low > USUAL and not moved
    reason = f"{share.value:.0%} of {proposals} offspring were functions known already"
    return _verdict(
        "activation space exhaustion",
        "share of offspring that were known (0..1)",
        share.value,
        EXHAUSTED,
        not failed,
        reason if outcome.generations else NO_SEARCH,
        Change(setting="open_reserve", op="set", value=1.0),
        Change(setting="extra_depth", op="add", value=1.0),
        Change(setting="extra_nodes", op="add", value=3.0),
        interval=share if proposals else None,
    )


def _equilibrium(
    outcome: Outcome,
    history: Sequence[Generation],
    earlier: Sequence[EvalPoint],
    gates: GateSettings,
) -> Verdict:
    """The best stands still, but the population is diverse: patience, with a limit.

    Standing still is meant twice: nothing was found for `FLAT_GENERATIONS`, and the line's own loss
    does not fall as it should (`_still`). A search that finds nothing while training goes on well
    is no stasis. It fails only so that its response is applied; the limit is the bound of
    `extra_patience`. The interval of the diversity says how far other members would differ.
    """
    recent = [*history, *outcome.generations][-FLAT_GENERATIONS:]
    diversity = recent[-1].diversity if recent else 0.0
    applies = bool(outcome.generations) and len(recent) == FLAT_GENERATIONS
    rising = applies and diversity > recent[0].diversity + RISING
    still, pace = _still(outcome, earlier, gates)
    dry = applies and not any(g.found for g in recent)
    failed = dry and still and (diversity >= DIVERSE or rising)
    if not outcome.generations:
        reason = NO_SEARCH
    elif failed:
        reason = "nothing better for a while, yet candidates differ: stasis before a jump is normal"
    elif dry and not still:
        known = "" if pace is None else f" ({pace.value:.0%} of the pace to be expected)"
        reason = f"nothing better was found, but the line does not surely stand still{known}"
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
        interval=recent[-1].diversity_interval(gates.confidence) if recent else None,
    )


def _stagnation(outcome: Outcome, earlier: Sequence[EvalPoint], gates: GateSettings) -> Verdict:
    """The members run as one and the line stands still: the consensus holds them fast.

    Standing still is meant against what the learning rate of the stretch should have given, see
    `_still`. The figure shown is the pace where it was it that decided, else r, which is exact.
    """
    name, metric = "consensus stagnation", "order parameter r of the members (0..1)"
    r = _last_sync(outcome.generations)
    if r is None:
        reason = "too few members at a time" if outcome.generations else NO_SEARCH
        return _verdict(name, metric, 0.0, LOCKED, True, reason)
    locked, found = r > LOCKED, outcome.generations[-1].found
    still, pace = _still(outcome, earlier, gates)
    failed = locked and not found and still
    reason = f"members {'run as one' if locked else 'keep their own pace'} (r = {r:.2f})"
    if locked:
        known = "" if pace is None else f" ({pace.value:.0%} of the pace to be expected)"
        reason += (
            f", and the loss stands still{known}"
            if failed
            else f", and yet something gets better{known}"
        )
    shown = pace if locked and not found else None
    return _verdict(
        name,
        metric if shown is None else "fall of the loss over the expected one (0..)",
        r if shown is None else shown.value,
        LOCKED if shown is None else STILL,
        not failed,
        reason,
        Change(setting="perturb_consensus", op="set", value=0.05),
        Change(setting="coupling_scale", op="scale", value=0.5),
        Change(setting="fusion_scale", op="scale", value=0.5),
        Change(setting="mutation_scale", op="scale", value=1.25),
        interval=shown,
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


def _still(
    outcome: Outcome, earlier: Sequence[EvalPoint], gates: GateSettings
) -> tuple[bool, Interval | None]:
    """Return whether the line stands still, and its pace where one can be expected."""
    pace = _pace(outcome, earlier, gates)
    return (not _falls(outcome, gates) if pace is None else pace.high < STILL), pace


def _pace(outcome: Outcome, earlier: Sequence[EvalPoint], gates: GateSettings) -> Interval | None:
    """Return the attempt's fall of loss over the expected one; None where none can be expected.

    Two figures tell it, the slope through the points and the batch-by-batch change from start to
    end. The one that leaves more room counts, so that both have to agree on standing still.
    """
    course = course_of(earlier, outcome.points, confidence=gates.confidence)
    before, change = course.before, _change(outcome, gates)
    slopes = [course.own] if len(outcome.points) >= POINTS_NEEDED else []
    if change is not None and course.gained > 0.0:
        slopes.append(_scaled(repeated(change), 1.0 / course.gained))
    if before is None or not slopes:
        return None
    return max((_scaled(slope, 1.0 / before.value) for slope in slopes), key=lambda s: s.high)


def _scaled(interval: Interval, factor: float) -> Interval:
    ends = sorted((interval.low * factor, interval.high * factor))
    return interval.model_copy(
        update={"value": interval.value * factor, "low": ends[0], "high": ends[1]}
    )


def _change(outcome: Outcome, gates: GateSettings) -> Interval | None:
    start, end = np.array(outcome.start.val_nats), np.array(outcome.end.val_nats)
    if start.shape != end.shape or start.size < 2:
        return None
    return paired_interval(end, start, confidence=gates.confidence)


def _falls(outcome: Outcome, gates: GateSettings) -> bool:
    """Whether the line's validation loss surely fell, by its slope or batch by batch."""
    steps = [point.line_step for point in outcome.points]
    losses = [point.val_nats for point in outcome.points]
    slope, change = (
        robust_slope(steps, losses, confidence=gates.confidence),
        _change(outcome, gates),
    )
    return slope.below_zero or (change is not None and change.below_zero)


def _mismatch(outcome: Outcome, gates: GateSettings) -> Verdict:
    """Spikes, a probe that another learning rate wins, or lost ground.

    Clipping by itself is none of these: under a low norm healthy lines are clipped in every step,
    and a tighter clip only raises the share. Beside it half the rate has to save less.
    """
    skipped, clipped = (
        share_interval(n, outcome.line_steps, confidence=gates.confidence)
        for n in (outcome.skipped, outcome.clipped)
    )
    half, double = _probe_gains(outcome, gates)
    needed = ANNEALED_NATS if clipped.low > CLIPPED else ANNEALING_NATS
    lower = Change(setting="lr_scale", op="scale", value=0.5)
    metric, threshold = "share of steps skipped as spikes (0..1)", SKIPPED
    reason = f"{skipped.value:.0%} of the steps were skipped as spikes, {clipped.value:.0%} clipped"
    changes: tuple[Change, ...] = ()
    value, interval = skipped.value, skipped if outcome.line_steps else None
    saved = "loss that a probe at another learning rate saves (nats a token)"
    if skipped.low > SKIPPED:
        changes = (lower, Change(setting="clip_scale", op="scale", value=0.7))
    elif double.above_zero and double.value > half.value:
        metric, value, interval, threshold = saved, double.value, double, 0.0
        reason = _won("twice", double)
        changes = (Change(setting="lr_scale", op="scale", value=1.5),)
    elif half.low > needed:
        metric, value, interval, threshold = saved, half.value, half, needed
        also = f"; {clipped.value:.0%} of the steps were clipped" if needed < ANNEALING_NATS else ""
        reason = _won("half", half) + also
        changes = (lower,)
    elif (lost := _lost_ground(outcome, gates)) is not None:
        metric = "loss above where the phase began, in training as well (nats a token)"
        value, interval, threshold = lost.value, lost, 0.0
        reason = (
            f"the line ends {lost.value:.4f} nats a token above where it began, in training as "
            "well, and a probe at half the learning rate does better"
        )
        changes = (lower,)
    elif outcome.lr_probe is not None:
        reason += "; no other learning rate surely does better"
    return _verdict(
        "learning-rate mismatch", metric, value, threshold, not changes, reason, *changes,
        interval=interval,
    )  # fmt: skip


def _won(factor: str, gain: Interval) -> str:
    return f"a probe at {factor} the learning rate does better by {gain.value:.4f} nats a token"


def _probe_gains(outcome: Outcome, gates: GateSettings) -> tuple[Interval, Interval]:
    """Return what half and twice the learning rate save over the rate at hand (nats a token).

    Each with its own interval, as far as a repeat of the training would agree; nothing where no
    probe was bought or a difference is no number.
    """
    gains = (0.0, 0.0)
    if outcome.lr_probe is not None:
        halved, same, doubled = outcome.lr_probe
        gains = (same - halved, same - doubled)
    half, double = (
        repeated(
            Interval(value=gain, low=gain - ci, high=gain + ci, confidence=gates.confidence)
            if math.isfinite(gain)
            else Interval(value=0.0, low=0.0, high=0.0, confidence=gates.confidence)
        )
        for gain, ci in zip(gains, outcome.lr_probe_ci, strict=True)
    )
    return half, double


def _lost_ground(outcome: Outcome, gates: GateSettings) -> Interval | None:
    """Return by how much a line surely ends above where it began (nats a token), if a lower rate
    helps it.

    The gap of the two losses wanders on the batches at hand, and no rise is told more exactly than
    that. It has to show on what is held out and on what the line learns from: learning by heart
    loses on one and gains on the other, and healthy lines gain on both. Averaged weights lag behind
    the line and would hide it, so its own points are read.
    """
    if outcome.lr_probe is None or len(outcome.points) < 2:
        return None
    half, same, _ = outcome.lr_probe
    first, last = outcome.points[0], outcome.points[-1]
    lost = min(last.val_nats - first.val_nats, last.train_nats - first.train_nats)
    if not (math.isfinite(lost) and lost > last.gap_ci and half < same):
        return None
    low, high = lost - last.gap_ci, lost + last.gap_ci
    return Interval(value=lost, low=low, high=high, confidence=gates.confidence)


def _verdict(
    name: str,
    metric: str,
    value: float,
    threshold: float,
    passed: bool,
    reason: str,
    *changes: Change,
    interval: Interval | None = None,
) -> Verdict:
    return Verdict(
        gate="plateau",
        name=name,
        metric=metric,
        value=value,
        interval=interval,
        threshold=threshold,
        passed=passed,
        reason=reason,
        changes=changes,
    )
