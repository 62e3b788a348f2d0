"""The figure of the final: the winner against each fixed function, with intervals. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from symbio_core.records import Confirmation, Effect
from symbio_core.report.answer import own_name
from symbio_core.report.plots import COLOURS, figure, safe

RAISED = 0.22
"""How far above its row the comparison at equal time stands (rows)."""


def final(confirmation: Confirmation) -> go.Figure:
    """Draw the effects of the confirmation: a dot and its interval for each fixed function."""
    effects = confirmation.effects
    rows = list(range(len(effects), 0, -1))
    drawn = figure(
        190 + 72 * len(rows),
        xaxis={"title": f"{safe(own_name(confirmation))} minus fixed: loss (nats a token)"},
        yaxis={
            "tickvals": rows,
            "ticktext": [f"against {safe(e.against)}" for e in effects],
            "range": [0.4, len(rows) + 0.5],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
        },
        margin={"l": 16, "r": 16, "t": 36, "b": 92},
    )
    level = f" and {effects[0].loss_nats.confidence:.0%} interval" if effects else ""
    timed = confirmation.effects_seconds
    steps = "at equal steps: " if timed else ""
    _means(drawn, confirmation, effects, f"{steps}mean{level}", "evolved", 0.0)
    if timed:
        _means(drawn, confirmation, timed, f"at equal time: mean{level}", "GELU", RAISED)
    _seed_dots(drawn, confirmation)
    _name_the_sides(drawn, confirmation)
    return drawn


def _means(
    drawn: go.Figure,
    confirmation: Confirmation,
    effects: Sequence[Effect],
    name: str,
    colour: str,
    lift: float,
) -> None:
    order = [effect.against for effect in confirmation.effects]
    shown = [effect for effect in effects if effect.against in order]
    drawn.add_scatter(
        x=[e.loss_nats.value for e in shown],
        y=[len(order) - order.index(e.against) + lift for e in shown],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [e.loss_nats.high - e.loss_nats.value for e in shown],
            "arrayminus": [e.loss_nats.value - e.loss_nats.low for e in shown],
            "thickness": 3,
            "width": 8,
            "color": COLOURS[colour],
        },
        mode="markers",
        name=name,
        marker={"size": 13, "color": COLOURS[colour]},
        text=[_effect_text(confirmation, effect) for effect in shown],
        hovertemplate="%{text}<extra></extra>",
    )


def _effect_text(confirmation: Confirmation, effect: Effect) -> str:
    nats, bpb = effect.loss_nats, effect.bpb
    return (
        f"{safe(confirmation.winner)}<br>against {safe(effect.against)}"
        f"<br>{nats.value:+.4f} ({nats.low:+.4f} to {nats.high:+.4f}) nats a token"
        f"<br>{bpb.value:+.4f} ({bpb.low:+.4f} to {bpb.high:+.4f}) bits a byte"
        f"<br>p = {effect.p_value:.3g}"
    )


def _seed_dots(drawn: go.Figure, confirmation: Confirmation) -> None:
    by_name = {c.name: c for c in confirmation.contenders}
    own = next((c for c in confirmation.contenders if c.formula == confirmation.winner), None)
    xs: list[float] = []
    ys: list[float] = []
    for index, effect in enumerate(confirmation.effects):
        other = by_name.get(effect.against)
        if own and other:
            gaps = [a - b for a, b in zip(own.nats, other.nats, strict=False)]
            xs += gaps
            ys += [len(confirmation.effects) - index - 0.24] * len(gaps)
    drawn.add_scatter(
        x=xs,
        y=ys,
        mode="markers",
        name="one seed",
        marker={"size": 8, "symbol": "circle-open", "color": COLOURS["train"]},
        hovertemplate="one seed: %{x:+.4f} nats a token<extra></extra>",
    )


def _name_the_sides(drawn: go.Figure, confirmation: Confirmation) -> None:
    effects = (*confirmation.effects, *confirmation.effects_seconds)
    ends = [x for e in effects for x in (e.loss_nats.low, e.loss_nats.high)]
    left, right = min([0.0, *ends]), max([0.0, *ends])
    # Either side keeps a quarter of the axis, so that its name has room.
    room = 0.3 * max(right - left, 1e-6)
    left, right = min(1.1 * left, -room), max(1.1 * right, room)
    drawn.update_xaxes(range=[left, right])
    drawn.add_vrect(
        x0=left, x1=0, fillcolor=COLOURS["good"], opacity=0.10, line_width=0, layer="below"
    )
    drawn.add_vline(x=0, line={"color": COLOURS["faint"], "width": 2})
    for x, text, anchor in (
        (0.0, f"◀ {safe(own_name(confirmation))} is better", "left"),
        (1.0, "fixed is better ▶", "right"),
    ):
        drawn.add_annotation(
            x=x,
            y=1.0,
            xref="paper",
            yref="paper",
            text=text,
            showarrow=False,
            xanchor=anchor,
            yanchor="bottom",
        )
