"""What the rented machines of a run cost, as a table of the page. Pure."""

from __future__ import annotations

from symbio_core.report import cells
from symbio_core.report.schema import CostSummary, FinalReport


def costs(report: FinalReport) -> str:
    """Show each machine with its time, its dollars and its end; nothing where none was rented."""
    cost = report.cost
    if cost is None:
        return ""
    rows = [
        {
            "machine": one.name,
            "zone": one.zone,
            "price": one.price_note,
            "charged": cells.duration(one.billed_s) if one.billed_s else cells.NONE,
            "cost": dollars(one.usd),
            "ended by": one.ended if one.is_over else f"{one.ended}, not yet settled",
        }
        for one in cost.machines
    ]
    return cells.section(
        "What it cost",
        cells.caption(_total(cost)),
        cells.table(rows, numbers=["charged", "cost"], tight=["machine", "zone"]),
    )


def dollars(usd: float) -> str:
    """Return an amount to the cent, and one below a dollar to a hundredth of that."""
    return f"${usd:.4f}" if 0.0 < usd < 1.0 else f"${usd:.2f}"


def _total(cost: CostSummary) -> str:
    granted = sum(one.billed_s > 0 for one in cost.machines)
    cap = "" if cost.cap_usd is None else f" of the {dollars(cost.cap_usd)} that were allowed"
    images = dict.fromkeys(one.image.rpartition("/")[2] for one in cost.machines if one.image)
    made = f", made from {' and '.join(images)}" if images else ""
    return (
        f"{dollars(cost.usd)}{cap}: {len(cost.machines)} machines ordered, {granted} charged, "
        f"{cells.duration(cost.seconds)} of machine time{made}. "
        "Charged are whole seconds, at least a minute each time a machine ran; the prices are "
        "those of a table with a date, and the bill may differ."
    )
