"""Fusion, synchrony and inherited weights in tables and plain words. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.records import Interval
from symbio_core.report.cells import NONE, caption, fixed, heading, ranged, table, where
from symbio_core.report.schema import AttemptSummary
from symbio_core.report.schema_search import ConsensusSummary, FusionSummary, TransferSummary

AS_ONE, PARTLY = 0.9, 0.5
"""Order parameters r from which members run as one, or are partly in step (0..1)."""


def fusion(phases: Sequence[AttemptSummary]) -> str:
    """Show for each search phase how its members were kept together; nothing where none was."""
    fused = [(a, a.fusion) for a in phases if a.fusion is not None]
    if not fused:
        return ""
    checks = [(a, check) for a, f in fused for check in f.checks]
    parts = [
        heading("Fusion: how members were kept together"),
        caption(
            "Each candidate has an angle that turns at its own pace of learning (Kuramoto's "
            "model): r is 1 when all point one way and near 0 when they are scattered. Between "
            "rungs each is pulled towards the average of all; a pull that would raise its "
            "validation loss is refused. Pulling also acts like a smaller learning rate; the "
            "factor says how much."
        ),
        table([_row(a, f) for a, f in fused], tight=["r after each rung"], prose=["in words"]),
    ]
    if checks:
        parts += [
            caption(
                "Did it help? The function in charge was trained twice, once pulled to the average "
                "and once left alone; a lower change of the loss is better. Entropy is how widely "
                "the average's weights are spread; a falling one means that it narrows down."
            ),
            table([_check(a, c) for a, c in checks], prose=["in words"]),
        ]
    return "".join(parts)


def _row(attempt: AttemptSummary, found: FusionSummary) -> dict[str, object]:
    gap, factor = found.widest_gap_rad, found.hidden_lr_factor
    return {
        "phase": where(attempt.phase, attempt.attempt),
        "r after each rung": " → ".join(fixed(r, 2) for r in found.sync),
        "widest gap": None if gap is None else f"{math.degrees(gap):.0f}°",
        "pulls accepted": found.accepted,
        "refused": found.refused,
        "learning rate, in effect": None if factor is None else f"× {factor:.3f}",
        "in words": _in_words(found),
    }


def _in_words(found: FusionSummary) -> str:
    last = next((r for r in reversed(found.sync) if r is not None), None)
    said = []
    if last is not None:
        pace = "run as one" if last > AS_ONE else "partly in step" if last > PARTLY else "scattered"
        said.append(f"members {pace} at the end")
    pulls = found.accepted + found.refused
    if pulls:
        said.append(f"{found.refused} of {pulls} pulls would have done harm")
    return "; ".join(said)


CHECKED = ("average − best member", "pulled", "left alone")


def _check(attempt: AttemptSummary, check: ConsensusSummary) -> dict[str, object]:
    told = (check.over_best_nats, check.coupled_nats, check.alone_nats)
    return {
        "phase": where(attempt.phase, attempt.attempt),
        "generation": check.generation + 1,
        "entropy (nats)": " → ".join(fixed(e, 2) for e in check.entropy_nats),
        **{name: ranged(interval) for name, interval in zip(CHECKED, told, strict=True)},
        "in words": _judged(check),
    }


def _judged(check: ConsensusSummary) -> str:
    said = []
    if check.over_best_nats is not None:
        said.append(
            "the average is better than the best member"
            if check.over_best_nats.below_zero
            else "the average is worse than the best member"
            if check.over_best_nats.above_zero
            else "the average is no better than the best member"
        )
    if check.coupled_nats is not None and check.alone_nats is not None:
        cost = check.coupled_nats.value - check.alone_nats.value
        effect = "cost" if cost > 0 else "saved"
        sure = "" if _apart(check.coupled_nats, check.alone_nats) else ", which is not sure"
        said.append(f"being pulled {effect} {abs(cost):.4f} nats a token{sure}")
    return "; ".join(said) or NONE


def transfers(phases: Sequence[AttemptSummary]) -> str:
    """Show the children whose inherited weights were put to the test; nothing where none was."""
    rows = [_transfer(a, check) for a in phases for check in a.transfers]
    if not rows:
        return ""
    return (
        heading("Do inherited weights help or hinder?")
        + caption(
            "A child starts from weights that another function has shaped. Beside it, the same two "
            "functions start from fresh weights. If the child falls behind on inherited weights "
            "only, it is the weights that hold it back. Losses are against the function in charge "
            "(nats a token); lower is better."
        )
        + table(rows, code=["formula"], prose=["in words"])
    )


def _transfer(attempt: AttemptSummary, check: TransferSummary) -> dict[str, object]:
    return {
        "phase": where(attempt.phase, attempt.attempt),
        "generation": check.generation + 1,
        "formula": check.formula,
        "inherited weights": ranged(check.warm_nats),
        "fresh weights": ranged(check.cold_nats),
        "steps behind": None if check.above_frac is None else f"{check.above_frac:.0%}",
        "in words": _inherited(check.warm_nats, check.cold_nats),
    }


def _inherited(warm: Interval | None, cold: Interval | None) -> str:
    if warm is None or cold is None:
        return NONE
    deficit = warm.value - cold.value
    how = "hold it back by" if deficit > 0 else "help it by"
    sure = "" if _apart(warm, cold) else ", which is not sure"
    return f"inherited weights {how} {abs(deficit):.4f} nats a token{sure}"


def _apart(one: Interval, other: Interval) -> bool:
    # Intervals that do not meet are a careful test: a difference can be sure before they part.
    return one.low > other.high or other.low > one.high
