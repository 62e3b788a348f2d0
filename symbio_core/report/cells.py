"""What the page is made of: tables, facts, figures, captions, numbers in words; escaped. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from symbio_core.records import Interval

Row = dict[str, Any]
NONE = "–"
MINUS = "\u2212"
FIRM = "\u00a0"
"""A space at which no line breaks."""
SECONDS_UP_TO = 90
"""Longer times are told in minutes and seconds, or hours and minutes."""
MOST_DIGITS = 9
"""Two numbers that agree in as many decimals are told as the same."""
NARROW = 3
"""Tables with more columns become lists of cards on a phone."""


def table(
    rows: Sequence[Row],
    *,
    code: Sequence[str] = (),
    numbers: Sequence[str] = (),
    tight: Sequence[str] = (),
    prose: Sequence[str] = (),
) -> str:
    """Return rows as an HTML table in a box that scrolls by itself; every cell is escaped.

    Args:
        rows: dicts with the same keys, which become the headings; a line break in a value stays.
        code: headings of columns with formulas or names of settings, set in a fixed width.
        numbers: headings of columns that stand flush right.
        tight: headings of columns whose lines do not break.
        prose: headings of columns with sentences, which need room.
    """
    if not rows:
        return '<p class="none">None.</p>'
    styles = {"code": code, "number": numbers, "tight": tight, "prose": prose}
    classes = {
        heading: " ".join(style for style, headings in styles.items() if heading in headings)
        for heading in rows[0]
    }
    head = "".join(f"<th{_class(classes[key])}>{html.escape(key)}</th>" for key in rows[0])
    body = "".join(
        f"<tr>{''.join(_data(key, value, classes[key]) for key, value in row.items())}</tr>"
        for row in rows
    )
    kind = "scroll wide" if len(rows[0]) > NARROW else "scroll"
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="{kind}" tabindex="0"><table>{inner}</table></div>'


def _data(heading: str, value: object, classes: str) -> str:
    label = html.escape(heading, quote=True)
    return f'<td{_class(classes)} data-label="{label}">{html.escape(_cell(value))}</td>'


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _cell(value: object) -> str:
    return NONE if value is None or value == "" else str(value)


def fixed(value: float | None, digits: int = 4) -> str:
    """Return a number with ``digits`` decimals, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def ranged(interval: Interval | None, form: str = "+.4f") -> str:
    """Return an estimate and its range, or a dash where there is none.

    A line may break before the range and not within it.
    """
    if interval is None:
        return NONE
    within = f"({interval.low:{form}} to {interval.high:{form}})".replace(" ", FIRM)
    return f"{interval.value:{form}} {within}".replace("-", MINUS)


def brief(value: float | None) -> str:
    """Return a number with as many figures as a person reads, or a dash where there is none."""
    return NONE if value is None else f"{value:.3g}".replace("-", MINUS)


def way(before: float | None, after: float | None) -> str:
    """Return where a number came from and went to, with decimals enough to tell them apart."""
    if before is None or after is None:
        return f"{brief(before)}{FIRM}→{FIRM}{brief(after)}"
    size = max(abs(before), abs(after))
    digits = max(0, 1 - math.floor(math.log10(size))) if size > 0.0 else 0
    while f"{before:.{digits}f}" == f"{after:.{digits}f}" and digits < MOST_DIGITS:
        if before == after:
            break
        digits += 1
    if before == round(before) and after == round(after):
        digits = 0
    return f"{fixed(before, digits)}{FIRM}→{FIRM}{fixed(after, digits)}"


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if 0.0 < seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds <= SECONDS_UP_TO:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int) -> str:
    """Return a whole number with thin spaces between its thousands."""
    return f"{number:,}".replace(",", "\u2009")


def where(phase: str, attempt: int) -> str:
    """Return a phase's name, and which try it was where it was not the first."""
    return phase if attempt == 1 else f"{phase} (try {attempt})"


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return names and values as a definition list, escaped."""
    inner = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(_cell(value))}</dd></div>"
        for name, value in pairs
    )
    return f'<dl class="facts">{inner}</dl>'


def section(title: str, *parts: str) -> str:
    """Return a section of the page; ``parts`` are HTML already."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def heading(text: str) -> str:
    """Return the heading of a part of a section, escaped."""
    return f"<h3>{html.escape(text)}</h3>"


def caption(text: str) -> str:
    """Return a paragraph that says what to look at, escaped."""
    return f'<p class="caption">{html.escape(text)}</p>'


def folded(title: str, *parts: str) -> str:
    """Return parts that open on a click; ``parts`` are HTML already."""
    inner = "".join(parts)
    return f"<details><summary>{html.escape(title)}</summary>{inner}</details>"


def drawing(name: str, figure: go.Figure, told: str) -> str:
    """Return a figure with its caption ``told``; the page's script draws it."""
    # The JSON has no '<' left: plotly writes \\u003c for it, so no text can end the script.
    return (
        f'<figure><div class="plot" id="{name}" style="min-height:{figure.layout.height}px"></div>'
        f'<script type="application/json" data-for="{name}">{figure.to_json()}</script>'
        f"<figcaption>{html.escape(told)}</figcaption></figure>"
    )
