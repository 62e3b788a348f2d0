"""The page to look at: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from plotly.offline import get_plotlyjs

from symbio_core.records import Attempt, Confirmation
from symbio_core.report import answer, cells, costs, deciding, gate_tables, sections
from symbio_core.report.schema import FinalReport

QUESTION = "Did the evolved activation beat GELU, SiLU and ReLU² on this corpus at equal cost?"


def render(report: FinalReport, attempts: Sequence[Attempt]) -> str:
    """Return report.html: the same text for the same report and journal.

    Args:
        report: what `build` made of the run.
        attempts: the attempts it was made from; curves, candidates and samples come from them.
    """
    body = "\n".join(
        (
            _opening(report),
            sections.final(report),
            sections.learning(attempts),
            sections.function(report),
            sections.search(report, attempts),
            deciding.decisions(report),
            sections.written(attempts),
            sections.use(report, attempts),
            costs.costs(report),
            sections.facts(report),
        )
    )
    return Template(_resource("page.html")).substitute(
        title=html.escape(f"{headline(report)} · {report.run_id}"),
        css=_resource("page.css"),
        body=body,
        plotly=get_plotlyjs(),
    )


def headline(report: FinalReport) -> str:
    """Say the verdict in a few words."""
    return "Not measured." if report.confirmation is None else answer.headline(report.confirmation)


def _resource(name: str) -> str:
    return files("symbio_core.report").joinpath(name).read_text(encoding="utf-8")


def _opening(report: FinalReport) -> str:
    kind = report.confirmation.verdict if report.confirmation else None
    head = headline(report)
    lead = report.verdict.removeprefix(head).removeprefix("Not measured: ").strip()
    lead = lead if report.confirmation else lead[:1].upper() + lead[1:]
    flags = "".join(
        f'<p class="flag">⚑ {html.escape(flag)}</p>'
        for flag in (*_null_search(report), *report.flags)
    )
    return (
        f'<header class="opening {(kind or "not measured").replace(" ", "-")}">'
        f'<p class="over">symbio · run {html.escape(report.run_id)} · '
        f"{html.escape(str(_corpus(report)))}</p>"
        f'<p class="question">{html.escape(QUESTION)}</p>'
        f"<h1>{html.escape(head)}</h1>"
        f'<p class="lead">{html.escape(lead)}</p>{flags}</header>'
        f"{_numbers(report)}"
    )


def _advised(confirmation: Confirmation) -> str:
    if confirmation.verdict == "evolved wins":
        return confirmation.winner
    formulas = {c.name: c.formula for c in confirmation.contenders}
    return formulas.get(confirmation.best_fixed, "")


def _null_search(report: FinalReport) -> list[str]:
    search = report.config.get("search")
    if not (isinstance(search, dict) and search.get("shuffle")):
        return []
    return [
        "A null search: scores were dealt out at random, so nothing is better than anything, and "
        "every verdict but “no difference” is a false discovery."
    ]


def _corpus(report: FinalReport) -> object:
    data = report.config.get("data")
    return data.get("corpus", "") if isinstance(data, dict) else ""


def _numbers(report: FinalReport) -> str:
    shipped, totals = report.shipped, report.totals
    quality = shipped.quality
    rate = None if totals.tokens_per_s is None else cells.count(round(totals.tokens_per_s))
    of_gpu = f", {cells.duration(totals.gpu_seconds)} on a GPU" if totals.gpu_seconds else ""
    cards = (
        (cells.fixed(shipped.val_bpb, 3), "bits a byte", "validation loss of the shipped model"),
        (
            "–" if quality is None else f"{quality.value:.2f}",
            "text quality, 0 to 1",
            "not judged" if quality is None else f"{quality.low:.2f} to {quality.high:.2f}",
        ),
        (
            cells.count(totals.steps.total),
            "steps spent",
            f"of {cells.count(totals.budget_steps)} allowed; "
            f"{cells.count(totals.steps.search)} on the search",
        ),
        (
            cells.duration(totals.seconds),
            "of training",
            f"{rate or '–'} tokens a second{of_gpu}",
        ),
        (
            str(totals.candidates),
            "functions tried",
            f"in {totals.generations} generations",
        ),
        (
            str(totals.attempts),
            "attempts at phases",
            f"{totals.rollbacks} rolled back, {len(report.dormant)} kept dormant",
        ),
    )
    inner = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(unit)}</span>"
        f"<small>{html.escape(note)}</small></div>"
        for value, unit, note in cards
    )
    return f'<div class="numbers">{inner}</div>{_ships(report)}'


def _ships(report: FinalReport) -> str:
    formula = html.escape(report.shipped.formula)
    told = f"The model that ships runs on <code>{formula}</code>."
    if report.confirmation is not None and _advised(report.confirmation) != report.shipped.formula:
        told += (
            " It is the checkpoint with the lowest validation loss that the run trained; the final "
            "above compared fresh models."
        )
    off = gate_tables.switched_off(report)
    told += f" Switched off in this run: {html.escape(', '.join(off))}." if off else ""
    return f'<p class="ships">{told}</p>'
