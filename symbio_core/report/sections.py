"""The sections of the page as escaped HTML. Pure."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence

from symbio_core.config import RunConfig
from symbio_core.records import Attempt, Generation
from symbio_core.report import (
    cells,
    final_plot,
    fusion,
    gate_tables,
    lineage,
    plots,
    samples,
    search_tables,
    tables,
)
from symbio_core.report.schema import FinalReport
from symbio_core.report.timeline import generations

LONGEST_PROMPT = 60
"""A longer prompt would not read well in the example command (characters)."""


def final(report: FinalReport) -> str:
    """Show the confirmation: effects with their intervals, p-values, contenders, cost."""
    title = "How sure is that?"
    confirmation = report.confirmation
    if confirmation is None:
        return cells.section(
            title, cells.caption(f"There is nothing to be sure of: {report.no_confirmation}.")
        )
    size = (
        ""
        if confirmation.scale == 1.0
        else (f" of a model {confirmation.scale:g} times as deep and wide as the run's own")
    )
    cost = (
        f"Every function was trained from fresh weights{size} for "
        f"{cells.count(confirmation.steps_each)} steps with each of {confirmation.seeds} seeds "
        f"and then read text that the search had never seen; that took "
        f"{cells.count(confirmation.steps)} steps and {cells.duration(confirmation.seconds)}."
    )
    parts = [cells.caption(cost)]
    if confirmation.effects:
        parts.append(
            cells.drawing(
                "final",
                final_plot.final(confirmation),
                "Look whether a bar crosses the line at 0: if it does, the difference to that "
                "function may be luck; a bar wholly to the left means that the search's "
                "choice is better. Rings are single seeds.",
            )
        )
    parts += [
        tables.effects(confirmation),
        cells.caption(
            "p is how often luck alone would show so large a difference, after correction for the "
            "number of comparisons; below 0.05 counts as sure."
            + (
                " At equal time, each fixed function was trained for as long as the search's "
                "choice: a slow function has to be better by more than its slowness. That time is "
                "reckoned from what a function takes to compute; the times that were measured "
                "stand below."
                if confirmation.effects_seconds
                else ""
            )
        ),
        tables.contenders(confirmation),
    ]
    return cells.section(title, *parts)


def learning(attempts: Sequence[Attempt]) -> str:
    """Show the losses over the phases."""
    title = "How the model learned"
    if not any(attempt.outcome.points for attempt in attempts):
        return cells.section(title, cells.caption("The run ended before its first evaluation."))
    caption = (
        "Look for the blue line falling and staying close to the dotted one: lower is better, "
        "and validation rising while train falls is overfitting. Each band is an attempt at a "
        "phase; steps that go to candidates or to the final do not move the lines."
    )
    return cells.section(
        title, cells.drawing("losses", plots.losses(attempts), caption), _inside(attempts)
    )


def _inside(attempts: Sequence[Attempt]) -> str:
    rows = tables.layers(attempts)
    if not rows:
        return ""
    return cells.folded(
        "Inside the model",
        cells.caption(
            "Each layer's feed-forward network, from the end of the first phase to the end of the "
            "last. Few directions in use, or little information passed on, is capacity that does "
            "nothing; weight entropy is 3.50 while weights look drawn by chance, and falls as they "
            "gather on few values."
        ),
        rows,
    )


def function(report: FinalReport) -> str:
    """Show the curve of the winner beside the fixed functions."""
    caption = (
        "Look where the orange curve leaves the others. All are scaled alike, so only their shape "
        "differs; most inputs of a layer lie between −2 and 2."
    )
    return cells.section(
        "The function that the search chose",
        f'<p class="formula"><code>{html.escape(report.winner)}</code></p>',
        cells.drawing("functions", plots.functions(report.winner), caption),
    )


def search(report: FinalReport, attempts: Sequence[Attempt]) -> str:
    """Show descent, best of each size, diversity and sync, fusion, and every candidate."""
    title, found = "How it was found", generations(attempts)
    if not found:
        off = "search" in gate_tables.switched_off(report)
        why = (
            "The search was switched off." if off else "The run ended before its first generation."
        )
        return cells.section(title, cells.caption(why))
    return cells.section(
        title,
        cells.drawing(
            "tree",
            lineage.tree(found),
            _lineage(found)
            + "Loss is paired with that of the function in charge (grey) on the same batches, so "
            "points below 0 did better; point at one to read its formula and its fate.",
        ),
        "<h3>Best function of each size</h3>",
        cells.caption(
            "Look how much each further node buys. Every loss is against the function in charge "
            "in its own generation, from fresh or from warm weights, so rows with another rival "
            "or other weights do not compare; the last column compares those that do."
        ),
        search_tables.hall_of_fame(found),
        cells.drawing(
            "togetherness",
            lineage.togetherness(found),
            "Look whether diversity stays above the lower dotted line: below it, candidates may be "
            "one function in different clothes. Sync r says how much the members move in step "
            "while they are pulled to their consensus.",
        ),
        fusion.fusion(report.phases),
        fusion.transfers(report.phases),
        cells.folded("What each generation cost and found", search_tables.generations(found)),
        cells.folded("Every candidate and its fate", search_tables.candidates(found)),
    )


def _lineage(found: Sequence[Generation]) -> str:
    if not any(member.fate == "won" for g in found for member in g.members):
        return "No candidate was surely better, so no line leads to a winner. "
    return "Look for the orange line: it leads back from the last winner to where it came from. "


def written(attempts: Sequence[Attempt]) -> str:
    """Show the best and the worst of the last battery."""
    title = "What it writes"
    if not attempts or not attempts[-1].battery.samples:
        return cells.section(title, cells.caption("The run ended before the model wrote anything."))
    last = attempts[-1]
    best, worst = samples.pick(last.battery)
    share = last.battery.verbatim_frac
    return cells.section(
        title,
        cells.caption(
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
    return cells.section(
        "Talk to the model",
        cells.caption("Run this in the folder that the run was started from:"),
        f"<pre><code>{html.escape(command)}</code></pre>",
        cells.caption(
            f"The exported model is in {root}/runs/{report.run_id}/model/ (weights as safetensors, "
            "shape and formula, tokenizer); final-report.json beside this page holds the same "
            "answer for programs."
        ),
        _weights(report),
    )


def _weights(report: FinalReport) -> str:
    if not report.shipped.weights_bpb:
        return ""
    return (
        cells.heading("Which of its weights ship")
        + cells.caption(
            "A checkpoint holds up to three sets of weights. Each was measured on the same "
            "validation text, and the set with the lowest loss is the one that is exported."
        )
        + tables.weights(report.shipped)
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
        ("switched off", ", ".join(gate_tables.switched_off(report)) or "nothing"),
        ("shipped checkpoint", report.shipped.id),
        ("symbio", where.symbio),
        ("Python", where.python),
        ("PyTorch", where.torch),
        ("device", where.device),
        ("precision", where.precision),
        ("CPUs / threads", f"{where.cpu_count} / {where.threads}"),
        ("platform", where.platform),
    ]
    return cells.section(
        "Where and how it ran",
        cells.facts(pairs),
        cells.folded("Every setting of the run", tables.settings(report.config)),
    )
