"""Figures of the page: the house style, losses, the functions. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from symbio_core import activations
from symbio_core.records import Attempt, EvalPoint, Generation
from symbio_core.report.timeline import Stretch, generation_points, stretches

COLOURS = {
    "evolved": "#e8710a",
    "GELU": "#4a90d9",
    "SiLU": "#2aa58c",
    "ReLU²": "#9b6bd3",
    "train": "#8d95a3",
    "validation": "#2f80d0",
    "good": "#2aa58c",
    "faint": "rgba(130,130,140,0.55)",
    "shade": "rgba(130,130,140,0.10)",
}
"""Middle tones, so that one figure reads on light and on dark paper."""
FIXED = {"GELU": "gelu(x)", "SiLU": "silu(x)", "ReLU²": "relu(x)²"}
"""The functions that everyone knows, name to formula."""
REACH = 3.0
"""Functions are drawn from −REACH to REACH: 99.7% of N(0, 1) lies there."""


def figure(height: int, **layout: Any) -> go.Figure:
    """Return an empty figure in the house style, ``height`` pixels high."""
    style: dict[str, Any] = {
        "template": "none",
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 92},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        "hoverlabel": {"align": "left"},
    }
    return go.Figure(layout=style | layout)


def safe(text: str) -> str:
    """Escape text for a hover or a label: plotly reads tags in them."""
    return html.escape(text, quote=False)


def losses(attempts: Sequence[Attempt]) -> go.Figure:
    """Draw train and validation loss against the steps of the run, phases shaded."""
    laid = stretches(attempts)
    drawn = figure(
        460,
        xaxis={"title": "steps spent by the run", "rangemode": "tozero"},
        yaxis={"title": "loss (nats a token)"},
        hovermode="closest",
    )
    for name in ("train", "validation"):
        drawn.add_trace(_loss_line(laid, name))
    _mark_generations(drawn, laid)
    _shade(drawn, laid)
    return drawn


def _loss_line(laid: Sequence[Stretch], name: str) -> go.Scatter:
    steps: list[int | None] = []
    nats: list[float | None] = []
    texts: list[str] = []
    for stretch in laid:
        for point in stretch.attempt.outcome.points:
            steps.append(point.step)
            nats.append(point.train_nats if name == "train" else point.val_nats)
            texts.append(_point_text(stretch, point))
        # A gap between attempts: the next may start from an older checkpoint.
        steps.append(None)
        nats.append(None)
        texts.append("")
    return go.Scatter(
        x=steps,
        y=nats,
        text=texts,
        name=name,
        mode="lines+markers",
        line={"color": COLOURS[name], "width": 2.5, "dash": "dot" if name == "train" else "solid"},
        marker={"size": 4},
        hovertemplate="%{text}<extra>" + name + "</extra>",
    )


def _point_text(stretch: Stretch, point: EvalPoint) -> str:
    return (
        f"{stretch.label}, step {point.step:,}<br>validation {point.val_nats:.4f} nats a token"
        f" = {point.val_bpb:.4f} bits a byte<br>train {point.train_nats:.4f} nats a token"
        f"<br>learning rate × {point.lr_factor:.2f}"
    )


def _mark_generations(drawn: go.Figure, laid: Sequence[Stretch]) -> None:
    marks = [pair for stretch in laid for pair in generation_points(stretch)]
    for found, symbol, name in (
        (True, "star", "generation, found a better function"),
        (False, "circle-open", "generation, found nothing better"),
    ):
        some = [(g, p) for g, p in marks if g.found is found]
        if some:
            drawn.add_scatter(
                x=[p.step for _, p in some],
                y=[p.val_nats for _, p in some],
                text=[_generation_text(g) for g, _ in some],
                name=name,
                mode="markers",
                marker={"symbol": symbol, "size": 12, "color": COLOURS["evolved"]},
                hovertemplate="%{text}<extra></extra>",
            )


def _generation_text(generation: Generation) -> str:
    tried = len(generation.members)
    result = "goes on with" if generation.found else "keeps"
    return (
        f"generation {generation.index + 1}, {tried} candidates, {generation.steps:,} steps"
        f"<br>{result} {safe(generation.winner)}"
    )


def _shade(drawn: go.Figure, laid: Sequence[Stretch]) -> None:
    for index, stretch in enumerate(laid):
        if index % 2 == 0:
            drawn.add_vrect(
                x0=stretch.begin,
                x1=stretch.end,
                fillcolor=COLOURS["shade"],
                line_width=0,
                layer="below",
            )
        if stretch.attempt.outcome.confirm_steps:
            _name_the_final(drawn, stretch)
    # The names stand on an axis of their own above the plot, where plotly turns them if need be.
    drawn.add_scatter(x=[0], y=[None], xaxis="x2", showlegend=False, hoverinfo="skip")
    drawn.update_layout(
        xaxis2={
            "overlaying": "x",
            "matches": "x",
            "side": "top",
            "tickvals": [(s.begin + s.end) / 2 for s in laid],
            "ticktext": [s.label for s in laid],
            "tickangle": -32,
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
        },
        margin={"l": 64, "r": 48, "t": 84, "b": 92},
    )


def _name_the_final(drawn: go.Figure, stretch: Stretch) -> None:
    drawn.add_annotation(
        x=stretch.end - stretch.attempt.outcome.confirm_steps / 2,
        y=0.5,
        yref="paper",
        text="the final:<br>fresh models<br>compete",
        showarrow=False,
        opacity=0.7,
    )


def functions(winner: str) -> go.Figure:
    """Draw the winner beside GELU, SiLU and ReLU², each at unit second moment under N(0, 1)."""
    x = np.linspace(-REACH, REACH, 241)
    drawn = figure(
        420,
        xaxis={"title": "input x (in spreads of a layer's inputs)"},
        yaxis={"title": "output f(x), scaled to E[f(x)²] = 1"},
    )
    own = activations.formula(activations.canonical(activations.parse(winner)))
    # The widest line lies at the bottom, so that a curve on top of it still shows.
    drawn.add_trace(_curve(x, winner, safe(winner), COLOURS["evolved"], 5.0))
    for name, text in FIXED.items():
        same = activations.formula(activations.canonical(activations.parse(text))) == own
        if not same:
            drawn.add_trace(_curve(x, text, name, COLOURS[name], 2.0))
    return drawn


def _curve(x: Any, text: str, name: str, colour: str, width: float) -> go.Scatter:
    expression = activations.parse(text)
    y = activations.evaluate(expression, x) * activations.normaliser(expression)
    return go.Scatter(
        x=[round(float(value), 4) for value in x],
        y=[round(float(value), 5) for value in y],
        name=name,
        mode="lines",
        line={"color": colour, "width": width, "simplify": False},
        hovertemplate="f(%{x:.2f}) = %{y:.3f}<extra>" + name + "</extra>",
    )
