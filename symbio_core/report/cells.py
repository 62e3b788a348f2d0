"""What tables and lists of the page are made of: cells, numbers in words, escaped HTML. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from symbio_core.records import Interval

Row = dict[str, Any]
NONE = "–"
MINUS = "\u2212"
SECONDS_UP_TO = 90
"""Longer times are told in minutes and seconds, or hours and minutes."""


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
        rows: dicts with the same keys, which become the headings.
        code: headings of columns with formulas or names of settings, set in a fixed width.
        numbers: headings of columns that stand flush right.
        tight: headings of columns whose lines do not break.
        prose: headings of columns with sentences, which need room.
    """
    if not rows:
        return '<p class="none">None.</p>'
    frame = pd.DataFrame([{key: _cell(value) for key, value in row.items()} for row in rows])
    places = {str(name): index + 1 for index, name in enumerate(frame.columns)}
    styles = {"code": code, "number": numbers, "tight": tight, "prose": prose}
    classes = [f"{style}-{places[name]}" for style, names in styles.items() for name in names]
    with pd.option_context("display.max_colwidth", None):
        text = frame.to_html(
            index=False, border=0, escape=True, justify="unset", classes=classes or None
        )
    return f'<div class="scroll" tabindex="0">{text}</div>'


def _cell(value: object) -> str:
    return NONE if value is None or value == "" else str(value)


def fixed(value: float | None, digits: int = 4) -> str:
    """Return a number with ``digits`` decimals, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def ranged(interval: Interval | None, form: str = "+.4f") -> str:
    """Return an estimate and its range, or a dash where there is none."""
    if interval is None:
        return NONE
    told = f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"
    return told.replace("-", MINUS)


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
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
