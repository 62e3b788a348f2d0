"""Overfitting told by a twin: coupling and inheritance against the same without them. Pure."""

from __future__ import annotations

from symbio_core.gates.evidence import finding, trained_difference
from symbio_core.records import Change, FusionCheck, Interval, Outcome, TransferCheck, Verdict

MOSTLY = 0.5
"""Share of its first steps above the control, beyond which a child had to unlearn (0..1)."""
FUSION_CHANGES = (
    Change(setting="reset_consensus", op="set", value=1.0),
    Change(setting="fusion_scale", op="scale", value=0.5),
)
TRANSFER_CHANGES = (
    Change(setting="inherit_less", op="add", value=0.3),
    Change(setting="immigrants", op="add", value=0.1),
)


def fusion_trap(outcome: Outcome) -> Verdict:
    """Level 3: the consensus narrows, is no better than a member, and its pull costs learning.

    The control is trained twice, pulled to the consensus and left alone, so under a harmless pull
    the two differ by chance alone. Their difference has to be surely above 0, training noise, the
    number of checks and the other levels accounted for: that alone holds a phase's false alarms to
    a tenth of 1 − confidence, and the other conditions only lower them.
    """
    name, metric = "fusion trap", "loss of the coupled control over its twin's (nats a token)"
    checks = [g.fusion for g in outcome.generations if g.fusion is not None]
    if not checks:
        reason = "no consensus was checked" if outcome.generations else "no search in this phase"
        return finding(name, metric, reason, FUSION_CHANGES)
    costs = [
        trained_difference(check.coupled_nats, check.twin_nats, comparisons=len(checks))
        for check in checks
    ]
    trapped = [_is_trap(check, cost) for check, cost in zip(checks, costs, strict=True)]
    worst = max(range(len(checks)), key=lambda i: (trapped[i], costs[i].low))
    reason = (
        f"pulled to a consensus that narrows and is no better, the control improves "
        f"{costs[worst].value:.4f} nats a token less than its twin left alone"
        if trapped[worst]
        else "the pull to the consensus does no sure harm"
    )
    return finding(
        name, metric, reason, FUSION_CHANGES, interval=costs[worst], passed=not trapped[worst]
    )


def _is_trap(check: FusionCheck, cost: Interval) -> bool:
    narrows = len(check.entropy_nats) > 1 and check.entropy_nats[-1] < check.entropy_nats[0]
    no_better = not check.consensus_nats.below_zero
    return narrows and no_better and check.twin_nats.below_zero and cost.above_zero


def transfer_interference(outcome: Outcome) -> Verdict:
    """Level 5: after its rung a child on inherited weights is worse off than on fresh ones.

    Every switch of the function is a shock that a cold twin is spared: in trials with rungs of 3 to
    35 steps ordinary offspring lost by it up to 60% of what inheriting is worth, minus the parent's
    function more than all. So what counts is whether anything is left of that worth, which is
    what the weights save the control over fresh ones: the difference in differences, what the
    child's function costs warm less cold, has to exceed it. Then the fresh twin is the better
    model. A function that is merely bad is as bad cold, and passes.
    """
    name = "transfer interference"
    metric = "loss on inherited weights above that on fresh ones (nats a token)"
    checks = [check for g in outcome.generations for check in g.transfers]
    if not checks:
        reason = "no child was tested" if outcome.generations else "no search in this phase"
        return finding(name, metric, reason, TRANSFER_CHANGES)
    costs = [_above_fresh(check, comparisons=len(checks)) for check in checks]
    hindered = [
        cost.above_zero and check.above_frac > MOSTLY
        for check, cost in zip(checks, costs, strict=True)
    ]
    worst = max(range(len(checks)), key=lambda i: (hindered[i], costs[i].low))
    reason = (
        f"{checks[worst].formula} ends its rung {costs[worst].value:.4f} nats a token worse on "
        f"inherited weights than on fresh ones, and lay behind in {checks[worst].above_frac:.0%} "
        "of its steps"
        if hindered[worst]
        else "no child is surely worse off with the weights it inherited than with fresh ones"
    )
    return finding(
        name, metric, reason, TRANSFER_CHANGES, interval=costs[worst], passed=not hindered[worst]
    )


def _above_fresh(check: TransferCheck, *, comparisons: int) -> Interval:
    cost = trained_difference(check.warm_nats, check.cold_nats, comparisons=comparisons)
    worth = max(0.0, check.worth_nats)
    ends = {name: getattr(cost, name) - worth for name in ("value", "low", "high")}
    return cost.model_copy(update=ends)
