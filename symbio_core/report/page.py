"""The page to look at: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence
from importlib.resources import files
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from symbio_core.records import Attempt
from symbio_core.report import lineage, plots, samples, tables
from symbio_core.report.schema import FinalReport
from symbio_core.report.timeline import generations

BADGES = {
    "evolved wins": "the evolved function won",
    "fixed wins": "a fixed function won",
    "no difference": "no difference",
    None: "not measured",
}
LONGEST_PROMPT = 60
"""A longer prompt would not read well in the example command (characters)."""


def render(report: FinalReport, attempts: Sequence[Attempt]) -> str:
    """Return report.html: the same text for the same report and journal.

    Args:
        report: what `build` made of the run.
        attempts: the attempts it was made from; curves, candidates and samples come from them.
    """
    body = "\n".join(
        (
            _opening(report),
            _final(report),
            _learning(attempts),
            _function(report),
            _search(attempts),
            _decisions(report),
            _samples(attempts),
            _use(report, attempts),
            _facts(report),
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
    confirmation = report.confirmation
    if confirmation is None:
        return "Not measured."
    if confirmation.verdict == "no difference":
        return f"No difference: keep {confirmation.best_fixed}."
    if confirmation.verdict == "fixed wins":
        return f"Keep {confirmation.best_fixed}: it won."
    return f"The evolved function beat {confirmation.best_fixed}."


def _resource(name: str) -> str:
    return files("symbio_core.report").joinpath(name).read_text(encoding="utf-8")


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def _figure(name: str, figure: go.Figure, caption: str) -> str:
    # The JSON has no '<' left: plotly writes \\u003c for it, so no text can end the script.
    return (
        f'<figure><div class="plot" id="{name}" style="min-height:{figure.layout.height}px"></div>'
        f'<script type="application/json" data-for="{name}">{figure.to_json()}</script>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _caption(text: str) -> str:
    return f'<p class="caption">{html.escape(text)}</p>'


def _folded(title: str, *parts: str) -> str:
    inner = "".join(parts)
    return f"<details><summary>{html.escape(title)}</summary>{inner}</details>"


def _opening(report: FinalReport) -> str:
    kind = report.confirmation.verdict if report.confirmation else None
    head = headline(report)
    lead = report.verdict
    for repeated in (head, head.removesuffix("."), "Not measured: "):
        lead = lead.removeprefix(repeated).lstrip(". ")
    lead = lead[:1].upper() + lead[1:] if kind is None else lead
    flags = "".join(f'<p class="flag">⚑ {html.escape(flag)}</p>' for flag in report.flags)
    return (
        f'<header class="opening {(kind or "not measured").replace(" ", "-")}">'
        f'<p class="over">symbio · run {html.escape(report.run_id)} · '
        f"{html.escape(str(_corpus(report)))}</p>"
        f'<p class="badge">{html.escape(BADGES[kind])}</p>'
        f"<h1>{html.escape(head)}</h1>"
        f'<p class="lead">{html.escape(lead)}</p>{flags}</header>'
        f"{_numbers(report)}"
    )


def _corpus(report: FinalReport) -> object:
    data = report.config.get("data")
    return data.get("corpus", "") if isinstance(data, dict) else ""


def _numbers(report: FinalReport) -> str:
    shipped, totals = report.shipped, report.totals
    quality = shipped.quality
    rate = None if totals.tokens_per_s is None else tables.count(round(totals.tokens_per_s))
    of_gpu = f", {tables.duration(totals.gpu_seconds)} on a GPU" if totals.gpu_seconds else ""
    cards = (
        (tables.fixed(shipped.val_bpb, 3), "bits a byte", "validation loss of the shipped model"),
        (
            "–" if quality is None else f"{quality.value:.2f}",
            "text quality, 0 to 1",
            "not judged" if quality is None else f"{quality.low:.2f} to {quality.high:.2f}",
        ),
        (
            tables.count(totals.steps.total),
            "steps spent",
            f"of {tables.count(totals.budget_steps)} allowed; "
            f"{tables.count(totals.steps.search)} on the search",
        ),
        (
            tables.duration(totals.seconds),
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
    formula = html.escape(shipped.formula)
    return (
        f'<div class="numbers">{inner}</div>'
        f'<p class="ships">The model that ships runs on <code>{formula}</code>.</p>'
    )


def _final(report: FinalReport) -> str:
    title = "Did the evolved function win?"
    confirmation = report.confirmation
    if confirmation is None:
        return _section(title, _caption(f"There is no answer: {report.no_confirmation}."))
    cost = (
        f"Every function was trained from fresh weights for "
        f"{tables.count(confirmation.steps_each)} steps with each of {confirmation.seeds} seeds "
        f"and then read text that the search had never seen; that took "
        f"{tables.count(confirmation.steps)} steps and {tables.duration(confirmation.seconds)}."
    )
    parts = [_caption(cost)]
    if confirmation.effects:
        parts.append(
            _figure(
                "final",
                plots.final(confirmation),
                "Look whether a bar crosses the line at 0: if it does, the difference to that "
                "function may be luck; a bar wholly to the left means that the evolved function "
                "is better. Rings are single seeds.",
            )
        )
    parts += [
        tables.effects(confirmation),
        _caption(
            "p is how often luck alone would show so large a difference, after correction for the "
            "number of comparisons; below 0.05 counts as sure."
        ),
        tables.contenders(confirmation),
    ]
    return _section(title, *parts)


def _learning(attempts: Sequence[Attempt]) -> str:
    title = "How the model learned"
    if not any(attempt.outcome.points for attempt in attempts):
        return _section(title, _caption("The run ended before its first evaluation."))
    caption = (
        "Look for the blue line falling and staying close to the dotted one: lower is better, "
        "and validation rising while train falls is overfitting. Each band is an attempt at a "
        "phase; steps that go to candidates or to the final do not move the lines."
    )
    return _section(title, _figure("losses", plots.losses(attempts), caption))


def _function(report: FinalReport) -> str:
    caption = (
        "Look where the orange curve leaves the others. All are scaled alike, so only their shape "
        "differs; most inputs of a layer lie between −2 and 2."
    )
    return _section(
        "The function that evolved",
        f'<p class="formula"><code>{html.escape(report.winner)}</code></p>',
        _figure("functions", plots.functions(report.winner), caption),
    )


def _search(attempts: Sequence[Attempt]) -> str:
    title, found = "How it was found", generations(attempts)
    if not found:
        return _section(title, _caption("The run ended before its first generation."))
    return _section(
        title,
        _figure(
            "tree",
            lineage.tree(found),
            "Look for the orange line: it leads back from the last winner to where it came from. "
            "Points below 0 did better than the function in charge on the same batches; point at "
            "one to read its formula and its fate.",
        ),
        "<h3>Best function of each size</h3>",
        _caption(
            "Look how much each further node buys. Every loss is against the function in charge "
            "in its own generation, so rows with different rivals do not compare directly."
        ),
        tables.hall_of_fame(found),
        _figure(
            "togetherness",
            lineage.togetherness(found),
            "Look whether diversity stays above the lower dotted line: below it, all candidates "
            "are the same function. Sync r says how much the members move in step while they are "
            "pulled to their consensus.",
        ),
        _folded("What each generation cost and found", tables.generations(found)),
        _folded("Every candidate and its fate", tables.candidates(found)),
    )


def _decisions(report: FinalReport) -> str:
    return _section(
        "What the run decided, and why",
        _caption("Each attempt at a phase, with losses from its start to its end."),
        tables.phases(report),
        "<h3>Decisions</h3>",
        _caption(
            "After each attempt the gates read the model's text and curves, and the first rule "
            "that fits decides; ⚑ means that the run went on although a gate had not passed."
        ),
        tables.decisions(report),
        "<h3>Settings that verdicts changed</h3>",
        _caption("What the gates saw reshaped the phases that followed (niche construction)."),
        tables.changes(report.applied),
        "<h3>Verdicts that raised a concern</h3>",
        tables.verdicts(report, passed=False),
        _folded("Verdicts that passed", tables.verdicts(report, passed=True)),
        "<h3>What the time bought</h3>",
        _caption("How fast the validation loss fell in each phase (ecological pressure)."),
        tables.efficiency(report),
        "<h3>Dormant checkpoints</h3>",
        _caption("Models that were set aside, and could have been revived."),
        _dormant(report),
    )


def _dormant(report: FinalReport) -> str:
    rows = [
        {
            "checkpoint": d.id,
            "from": d.phase if d.attempt == 1 else f"{d.phase} (try {d.attempt})",
            "step": tables.count(d.step),
            "activation": d.formula,
            "bits a byte": tables.fixed(d.val_bpb),
            "quality (0 to 1)": tables.ranged(d.quality, ".2f"),
        }
        for d in report.dormant
    ]
    return tables.table(rows, code=["checkpoint", "activation"], numbers=["step", "bits a byte"])


def _samples(attempts: Sequence[Attempt]) -> str:
    title = "What it writes"
    if not attempts or not attempts[-1].battery.samples:
        return _section(title, _caption("The run ended before the model wrote anything."))
    last = attempts[-1]
    best, worst = samples.pick(last.battery)
    share = last.battery.verbatim_frac
    return _section(
        title,
        _caption(
            f"From {len(last.battery.samples)} answers written after {last.outcome.phase}; quality "
            "is measured against human text of the same corpus. The longest run of words copied "
            f"from the training text is {last.battery.longest_verbatim}; {share:.1%} of the words "
            "are in copies beyond what human text shows."
        ),
        "<h3>The best</h3>",
        samples.cards(best),
        "<h3>The worst</h3>" + samples.cards(worst) if worst else "",
    )


def _use(report: FinalReport, attempts: Sequence[Attempt]) -> str:
    prompts = [s.prompt for a in attempts[-1:] for s in a.battery.samples]
    short = (p for p in prompts if 0 < len(p) <= LONGEST_PROMPT and p.isprintable())
    prompt = shlex.quote(next(short, "Once upon a time"))
    name = shlex.quote(report.run_id)
    command = f"symbio sample {name} --prompt {prompt}"
    return _section(
        "Talk to the model",
        _caption("Run this where the run's storage is:"),
        f"<pre><code>{html.escape(command)}</code></pre>",
        _caption(
            f"The exported model is in {_model_folder(report)}; final-report.json beside this "
            "page holds the same answer for programs."
        ),
    )


def _model_folder(report: FinalReport) -> str:
    storage = report.config.get("storage")
    root = storage.get("root", "storage") if isinstance(storage, dict) else "storage"
    return f"{root}/runs/{report.run_id}/model/"


def _facts(report: FinalReport) -> str:
    where = report.environment
    pairs: list[tuple[str, object]] = [
        ("started", report.started),
        ("ended", report.ended),
        ("why it ended", report.finished),
        ("shipped checkpoint", report.shipped.id),
        ("symbio", where.symbio),
        ("Python", where.python),
        ("PyTorch", where.torch),
        ("device", where.device),
        ("precision", where.precision),
        ("CPUs / threads", f"{where.cpu_count} / {where.threads}"),
        ("platform", where.platform),
    ]
    return _section(
        "Where and how it ran",
        tables.facts(pairs),
        _folded("Every setting of the run", tables.settings(report.config)),
    )
