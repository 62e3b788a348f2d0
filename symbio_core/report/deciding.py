"""The section on what the run saw in itself, decided, and changed because of it. Pure."""

from __future__ import annotations

from symbio_core.report import cells, gate_tables, niche, tables
from symbio_core.report.cells import caption, folded, heading
from symbio_core.report.schema import FinalReport


def decisions(report: FinalReport) -> str:
    """Show phases, decisions, moved numbers, verdicts, alarms, what time bought, dormant models."""
    return cells.section(
        "What the run decided, and why",
        caption("Each attempt at a phase: look how far it took loss and quality."),
        tables.phases(report),
        heading("Decisions"),
        caption(
            "After each attempt the gates read the model's text and curves, and the first rule "
            "that fits decides; ⚑ means that the run went on although a gate had not passed."
        ),
        tables.decisions(report),
        heading("How the run changed itself"),
        caption(gate_tables.unmoved(report)),
        niche.trail(report.applied) if report.applied else "",
        heading("What the gates worried about"),
        gate_tables.concerns(report),
        gate_tables.quiet(report),
        gate_tables.passed(report),
        gate_tables.alarms(report.phases),
        *_ecology(report),
        heading("Dormant checkpoints"),
        caption("Models that were set aside, and could have been revived."),
        _dormant(report),
    )


def _ecology(report: FinalReport) -> list[str]:
    found = [
        heading("What the time bought"),
        caption(
            f"Look which phase lowered the validation loss most in a {tables.second_of(report)} "
            "(ecological pressure). Search and final count as time of their phase."
        ),
        tables.efficiency(report),
    ]
    if report.candidates:
        found += [
            caption(
                "The candidates whose time bought most. A gain is over the function in charge on "
                "the same batches; a dearer step has to earn its price, so ranking goes by the "
                "gain at equal cost."
            ),
            tables.economy(report),
        ]
    return [*found, folded("What each attempt spent", tables.spending(report))]


def _dormant(report: FinalReport) -> str:
    rows = [
        {
            "checkpoint": d.id,
            "from": cells.where(d.phase, d.attempt),
            "step": cells.count(d.step),
            "activation": d.formula,
            "bits a byte": cells.fixed(d.val_bpb),
            "quality (0 to 1)": cells.ranged(d.quality, ".2f"),
        }
        for d in report.dormant
    ]
    return cells.table(rows, code=["checkpoint", "activation"], numbers=["step", "bits a byte"])
