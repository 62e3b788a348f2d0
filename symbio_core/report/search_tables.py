"""Tables of the search: the best of each size, the generations, every candidate. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.records import Generation, MemberRecord
from symbio_core.report.cells import NONE, count, duration, fixed, ranged, table, where

LOSS = "against the one in charge (nats a token)"


def hall_of_fame(generations: Sequence[Generation]) -> str:
    """List the best function of each size among those that trained longest in their generation.

    Sizes are compared only where both met the same rival from the same kind of weights.
    """
    best: dict[int, tuple[Generation, MemberRecord]] = {}
    for generation in generations:
        for member in _finalists(generation):
            nodes = member.candidate.nodes
            if nodes not in best or _loss(member) < _loss(best[nodes][1]):
                best[nodes] = (generation, member)
    rows: list[dict[str, object]] = []
    lowest: dict[tuple[str, str], float] = {}
    for nodes, (generation, member) in sorted(best.items()):
        loss, rival = _loss(member), (generation.parent, generation.start)
        moved = NONE if rival not in lowest else "yes" if loss < lowest[rival] else "no"
        lowest[rival] = min(loss, lowest.get(rival, float("inf")))
        rows.append(
            {
                "nodes": nodes,
                "formula": member.candidate.formula,
                LOSS: ranged(member.score.loss_nats if member.score else None),
                "in charge then": generation.parent,
                "weights": generation.start,
                "generation": generation.index + 1,
                "better than smaller ones there": moved,
            }
        )
    return table(rows, code=["formula", "in charge then"], numbers=["nodes", "generation"])


def _finalists(generation: Generation) -> list[MemberRecord]:
    scored = [m for m in generation.members if m.score is not None]
    last = max((m.rung for m in scored), default=0)
    return [m for m in scored if m.rung == last]


def _loss(member: MemberRecord) -> float:
    assert member.score is not None
    return member.score.loss_nats.value


def generations(found: Sequence[Generation]) -> str:
    """List what each generation cost and found."""
    rows = [
        {
            "generation": g.index + 1,
            "phase": where(g.phase, g.attempt),
            "in charge": g.parent,
            "went on with": g.winner,
            "found": "better" if g.found else "nothing surely better",
            "candidates": len(g.members),
            "known already": f"{g.duplicates} of {g.proposals}",
            "diversity": fixed(g.diversity, 2),
            "different in effect": NONE if g.entropy_nats is None else _effective(g.entropy_nats),
            "sync r": fixed(g.sync[-1], 2) if g.sync else NONE,
            "fusions taken": f"{g.fusions_accepted} of {g.fusions_accepted + g.fusions_refused}",
            "steps": count(g.steps),
            "time": duration(g.seconds),
        }
        for g in found
    ]
    right = [
        "generation", "candidates", "diversity", "different in effect", "sync r", "steps", "time",
    ]  # fmt: skip
    return table(rows, code=["in charge", "went on with"], numbers=right)


def _effective(entropy_nats: float) -> str:
    return fixed(math.exp(entropy_nats), 1)


def candidates(found: Sequence[Generation]) -> str:
    """List every candidate: where it came from, how it did, why it went."""
    rows = [
        {
            "generation": g.index + 1,
            "formula": m.candidate.formula,
            "nodes": m.candidate.nodes,
            "came by": m.candidate.mutation,
            "parents": " and ".join(m.candidate.parents),
            LOSS: ranged(m.score.loss_nats if m.score else None),
            "a step costs": f"× {m.score.cost:.2f}" if m.score else None,
            "steps": m.score.steps if m.score else None,
            "fate": m.fate,
        }
        for g in found
        for m in g.members
    ]
    return table(rows, code=["formula", "parents"], numbers=["generation", "nodes", "steps"])
