"""Figures of the search: who descends from whom, and how diverse and in step they were. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from symbio_core.records import Generation, MemberRecord
from symbio_core.report.plots import COLOURS, figure, safe

SPREAD = 0.56
"""Width that the members of one generation share on the axis (generations)."""
MOST_TICKS = 16
"""More generations than this are numbered by the plot's own choice."""
LONGEST_LABEL = 24
"""Longer formulas are cut on the plot and whole in the hover (characters)."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A point of the family tree."""

    x: float
    y: float
    """Paired loss to the control (nats a token)."""
    formula: str
    parents: tuple[Node, ...]
    kind: str
    """`won`, `survived`, `dropped` or `control`."""
    text: str


def family(generations: Sequence[Generation]) -> list[Node]:
    """Place every scored candidate and every control, each after its parents.

    A parent is the latest earlier point of that formula; a parent that never stood on the plot
    (a founder's leaf) gives no line.
    """
    nodes: list[Node] = []
    latest: dict[str, Node] = {}
    for generation in generations:
        number = generation.index + 1
        old = latest.get(generation.parent)
        control = Node(
            x=number - SPREAD / 2 - 0.12,
            y=0.0,
            formula=generation.parent,
            parents=(old,) if old else (),
            kind="control",
            text=f"generation {number}: in charge<br>{safe(generation.parent)}",
        )
        latest[generation.parent] = control
        placed = _members(generation, latest)
        nodes += [control, *placed]
        latest |= {node.formula: node for node in placed}
    return nodes


def _members(generation: Generation, latest: dict[str, Node]) -> list[Node]:
    members = [m for m in generation.members if m.score is not None]
    slots = np.linspace(-SPREAD / 2, SPREAD / 2, max(2, len(members)))
    return [
        Node(
            x=round(generation.index + 1 + float(slot), 4),
            y=_loss(member),
            formula=member.candidate.formula,
            parents=tuple(latest[p] for p in member.candidate.parents if p in latest),
            kind=member.fate if member.fate in ("won", "survived") else "dropped",
            text=_member_text(generation, member),
        )
        for member, slot in zip(members, slots, strict=False)
    ]


def _loss(member: MemberRecord) -> float:
    assert member.score is not None
    return member.score.loss_nats.value


def _member_text(generation: Generation, member: MemberRecord) -> str:
    assert member.score is not None
    loss, parents = member.score.loss_nats, member.candidate.parents
    origin = f"{member.candidate.mutation} of {' and '.join(parents)}" if parents else ""
    return (
        f"<b>{safe(member.candidate.formula)}</b><br>generation {generation.index + 1}, "
        f"{safe(origin or member.candidate.mutation)}"
        f"<br>{loss.value:+.4f} ({loss.low:+.4f} to {loss.high:+.4f}) nats a token against "
        f"{safe(generation.parent)}<br>after {member.score.steps:,} steps: {safe(member.fate)}"
    )


def tree(generations: Sequence[Generation]) -> go.Figure:
    """Draw the family tree of the candidates: generation across, paired loss up."""
    nodes = [node for node in family(generations) if np.isfinite(node.y)]
    ceiling = _ceiling([node.y for node in nodes])
    drawn = figure(
        520,
        xaxis=_axis(generations) | {"showgrid": False},
        yaxis={"title": "paired loss (nats a token)"},
        hovermode="closest",
    )
    line = _ancestors(nodes)
    _edges(drawn, nodes, ceiling, [])
    if line:
        _edges(drawn, nodes, ceiling, line)
    styles = {
        "control": ("in charge", "diamond", 10, COLOURS["train"]),
        "dropped": ("dropped out", "x-thin", 9, COLOURS["faint"]),
        "survived": ("survived, not surely better", "circle", 10, COLOURS["validation"]),
        "won": ("won: surely better", "star", 16, COLOURS["evolved"]),
    }
    for kind, (name, symbol, size, colour) in styles.items():
        some = [node for node in nodes if node.kind == kind]
        drawn.add_scatter(
            x=[n.x for n in some],
            y=[min(n.y, ceiling) for n in some],
            text=[_label(n) for n in some],
            customdata=[n.text for n in some],
            mode="markers+text" if kind == "won" else "markers",
            textposition="bottom center",
            name=name,
            marker={
                "symbol": [symbol if n.y <= ceiling else "triangle-up" for n in some],
                "size": size,
                "color": colour,
                "line": {"width": 2 if symbol == "x-thin" else 0, "color": colour},
            },
            hovertemplate="%{customdata}<extra></extra>",
        )
    return drawn


def _axis(generations: Sequence[Generation]) -> dict[str, Any]:
    return {"title": "generation"} | ({"dtick": 1} if len(generations) <= MOST_TICKS else {})


def _ceiling(losses: Sequence[float]) -> float:
    # A function that breaks the model would press all the others into one line.
    if not losses:
        return 0.0
    low, mid, high = np.percentile(losses, [0, 50, 75])
    return float(max(high + 2.0 * (high - low), mid, 0.001))


def _label(node: Node) -> str:
    name = node.formula
    return safe(name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…")


def _ancestors(nodes: Sequence[Node]) -> list[Node]:
    winners = [node for node in nodes if node.kind == "won"]
    todo, found = winners[-1:], []
    while todo:
        node = todo.pop()
        if node not in found:
            found.append(node)
            todo += node.parents
    return found


def _edges(drawn: go.Figure, nodes: Sequence[Node], ceiling: float, only: Sequence[Node]) -> None:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for node in only or nodes:
        for parent in node.parents:
            xs += [parent.x, node.x, None]
            ys += [min(parent.y, ceiling), min(node.y, ceiling), None]
    if xs:
        drawn.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            name="line of the last winner" if only else "descent",
            line={"color": COLOURS["evolved" if only else "faint"], "width": 2.5 if only else 1},
            hoverinfo="skip",
        )


def togetherness(generations: Sequence[Generation]) -> go.Figure:
    """Draw the diversity of each generation and the members' sync after each rung."""
    drawn = figure(
        380,
        xaxis=_axis(generations),
        yaxis={"title": "share of the possible (0 to 1)", "range": [0, 1.04]},
    )
    drawn.add_scatter(
        x=[g.index + 1 for g in generations],
        y=[g.diversity for g in generations],
        name="diversity of the functions",
        mode="lines+markers",
        line={"color": COLOURS["good"], "width": 2.5},
        hovertemplate="generation %{x}: diversity %{y:.2f}<extra></extra>",
    )
    beats = [
        (round(g.index + 1 + (k + 1) / (len(g.sync) + 1) - 0.5, 4), r)
        for g in generations
        for k, r in enumerate(g.sync)
    ]
    drawn.add_scatter(
        x=[x for x, _ in beats],
        y=[r for _, r in beats],
        name="sync r of the members",
        mode="lines+markers",
        line={"color": COLOURS["ReLU²"], "width": 2.5},
        hovertemplate="sync r = %{y:.2f}<extra></extra>",
    )
    for y, text in ((0.3, "below: population collapse"), (0.9, "above: too much in step")):
        drawn.add_hline(
            y=y,
            line={"color": COLOURS["faint"], "dash": "dot"},
            annotation={"text": text, "xanchor": "right", "yanchor": "bottom"},
        )
    return drawn
