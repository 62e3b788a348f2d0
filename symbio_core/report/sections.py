"""The sections of the page as escaped HTML. Pure."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence

import plotly.graph_objects as go

from symbio_core.config import RunConfig
from symbio_core.records import Attempt
from symbio_core.report import cells, lineage, plots, samples, search_tables, tables
from symbio_core.report.schema import FinalReport
from symbio_core.report.timeline import generations

LONGEST_PROMPT = 60
"""A longer prompt would not read well in the example command (characters)."""


def final(report: FinalReport) -> str:
    """Show the confirmation: effects with their intervals, p-values, contenders, cost."""
    title = "How sure is that?"
    confirmation = report.confirmation
    if confirmation is None:
        return _section(
            title, _caption(f"There is nothing to be sure of: {report.no_confirmation}.")
        )
    cost = (
        f"Every function was trained from fresh weights for "
        f"{cells.count(confirmation.steps_each)} steps with each of {confirmation.seeds} seeds "
        f"and then read text that the search had never seen; that took "
        f"{cells.count(confirmation.steps)} steps and {cells.duration(confirmation.seconds)}."
    )
    parts = [_caption(cost)]
    if confirmation.effects:
        parts.append(
            _figure(
                "final",
                plots.final(confirmation),
                "Look whether a bar crosses the line at 0: if it does, the difference to that "
                "function may be luck; a bar wholly to the left means that the search's "
                "choice is better. Rings are single seeds.",
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


def learning(attempts: Sequence[Attempt]) -> str:
    """Show the losses over the phases."""
    title = "How the model learned"
    if not any(attempt.outcome.points for attempt in attempts):
        return _section(title, _caption("The run ended before its first evaluation."))
    caption = (
        "Look for the blue line falling and staying close to the dotted one: lower is better, "
        "and validation rising while train falls is overfitting. Each band is an attempt at a "
        "phase; steps that go to candidates or to the final do not move the lines."
    )
    return _section(title, _figure("losses", plots.losses(attempts), caption))


def function(report: FinalReport) -> str:
    """Show the curve of the winner beside the fixed functions."""
    caption = (
        "Look where the orange curve leaves the others. All are scaled alike, so only their shape "
        "differs; most inputs of a layer lie between −2 and 2."
    )
    return _section(
        "The function that the search chose",
        f'<p class="formula"><code>{html.escape(report.winner)}</code></p>',
        _figure("functions", plots.functions(report.winner), caption),
    )


def search(attempts: Sequence[Attempt]) -> str:
    """Show descent, best of each size, diversity and sync, and every candidate."""
    title, found = "How it was found", generations(attempts)
    if not found:
        return _section(title, _caption("The run ended before its first generation."))
    return _section(
        title,
        _figure(
            "tree",
            lineage.tree(found),
            "Look for the orange line: it leads back from the last winner to where it came from. "
            "Loss is paired with that of the function in charge (grey) on the same batches, so "
            "points below 0 did better; point at one to read its formula and its fate.",
        ),
        "<h3>Best function of each size</h3>",
        _caption(
            "Look how much each further node buys. Every loss is against the function in charge "
            "in its own generation, so rows with different rivals do not compare directly."
        ),
        search_tables.hall_of_fame(found),
        _figure(
            "togetherness",
            lineage.togetherness(found),
            "Look whether diversity stays above the lower dotted line: below it, all candidates "
            "are the same function. Sync r says how much the members move in step while they are "
            "pulled to their consensus.",
        ),
        _folded("What each generation cost and found", search_tables.generations(found)),
        _folded("Every candidate and its fate", search_tables.candidates(found)),
    )


def decisions(report: FinalReport) -> str:
    """Show phases, decisions, changed settings, verdicts, what time bought, dormant models."""
    return _section(
        "What the run decided, and why",
        _caption("Each attempt at a phase: look how far it took loss and quality."),
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
        _caption("Look which phase lowered the validation loss fastest (ecological pressure)."),
        tables.efficiency(report),
        _folded("What each attempt spent", tables.spending(report)),
        "<h3>Dormant checkpoints</h3>",
        _caption("Models that were set aside, and could have been revived."),
        _dormant(report),
    )


def _dormant(report: FinalReport) -> str:
    rows = [
        {
            "checkpoint": d.id,
            "from": d.phase if d.attempt == 1 else f"{d.phase} (try {d.attempt})",
            "step": cells.count(d.step),
            "activation": d.formula,
            "bits a byte": cells.fixed(d.val_bpb),
            "quality (0 to 1)": cells.ranged(d.quality, ".2f"),
        }
        for d in report.dormant
    ]
    return cells.table(rows, code=["checkpoint", "activation"], numbers=["step", "bits a byte"])


def written(attempts: Sequence[Attempt]) -> str:
    """Show the best and the worst of the last battery."""
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


def use(report: FinalReport, attempts: Sequence[Attempt]) -> str:
    """Say how to sample the model and where it lies."""
    prompts = [s.prompt for a in attempts[-1:] for s in a.battery.samples]
    short = (p for p in prompts if 0 < len(p) <= LONGEST_PROMPT and p.isprintable())
    prompt = shlex.quote(next(short, "Once upon a time"))
    name = shlex.quote(report.run_id)
    root = _root(report)
    where = "" if root == RunConfig().storage.root else f" --storage {shlex.quote(root)}"
    command = f"symbio sample {name} --prompt {prompt}{where}"
    return _section(
        "Talk to the model",
        _caption("Run this in the folder that the run was started from:"),
        f"<pre><code>{html.escape(command)}</code></pre>",
        _caption(
            f"The exported model is in {root}/runs/{report.run_id}/model/ (weights as safetensors, "
            "shape and formula, tokenizer); final-report.json beside this page holds the same "
            "answer for programs."
        ),
    )


def _root(report: FinalReport) -> str:
    storage = report.config.get("storage")
    root = storage.get("root") if isinstance(storage, dict) else None
    return str(root or RunConfig().storage.root)


def facts(report: FinalReport) -> str:
    """Show when, where and under which settings the run ran."""
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
        cells.facts(pairs),
        _folded("Every setting of the run", tables.settings(report.config)),
    )


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
