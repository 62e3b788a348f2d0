"""Whether a run has an answer, and if not, why not. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.config import RunConfig
from symbio_core.records import Attempt, Confirmation
from symbio_core.report.numbers import finite_interval


def settled_final(
    config: RunConfig,
    confirmation: Confirmation | None,
    attempts: Sequence[Attempt],
    finished: str,
) -> tuple[Confirmation | None, str | None]:
    """Return the final if its numbers can be believed, else None and the reason.

    Args:
        config: the run's settings; a final that they switched off is said to be.
        confirmation: the final's record; None where the run did not come so far.
        attempts: every attempt at a phase, oldest first.
        finished: why the run ended.
    """
    if confirmation is None:
        off = "the final was switched off" if not config.has("final") else None
        return None, off or _why_not(attempts, finished)
    broken = [
        c.formula
        for c in confirmation.contenders
        if not all(
            map(math.isfinite, (*c.nats, *c.nats_same_cost, c.bpb, c.cost, c.seconds_per_step))
        )
    ]
    if broken:
        return None, f"the loss was not finite in the final for {', '.join(broken)}"
    effects = (*confirmation.effects, *confirmation.effects_seconds)
    ranges = [i for e in effects for i in (e.loss_nats, e.bpb)]
    sure = all(finite_interval(i) for i in ranges)
    if not sure or not all(math.isfinite(e.p_value) for e in effects):
        return None, "the differences of the final have no finite interval"
    return confirmation, None


def _why_not(attempts: Sequence[Attempt], finished: str) -> str:
    finals = [a for a in attempts if a.plan.phase == "oxidation"]
    if not attempts:
        return f"no phase was completed ({finished})"
    if not finals:
        return f"the run ended after {attempts[-1].plan.phase}, before the final ({finished})"
    last = finals[-1].outcome
    if last.stopped != "done":
        return f"oxidation stopped early ({(last.reason or last.stopped).rstrip('.')})"
    return "oxidation had no steps left for the final"
