"""What the model wrote, best and worst, as escaped HTML. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence

from symbio_core.records import Battery, Sample

BEST, WORST = 5, 3
"""How many samples of either kind are shown."""


def pick(battery: Battery) -> tuple[list[Sample], list[Sample]]:
    """Return the best and the worst samples; a sample is never in both lists.

    Samples of equal quality keep the order of the battery.
    """
    ranked = sorted(battery.samples, key=lambda sample: -sample.quality)
    best = ranked[:BEST]
    worst = ranked[len(best) :][-WORST:]
    return best, worst[::-1]


def cards(samples: Sequence[Sample]) -> str:
    """Return samples as cards: prompt, answer, quality, temperature."""
    return f'<div class="cards">{"".join(_card(sample) for sample in samples)}</div>'


def _card(sample: Sample) -> str:
    failed = f'<p class="error">failed: {html.escape(sample.error)}</p>' if sample.error else ""
    parts = " · ".join(f"{name} {value:.2f}" for name, value in sorted(sample.parts.items()))
    shown = f'<p class="parts">{html.escape(parts)}</p>' if parts else ""
    return (
        '<article class="sample">'
        f"<header><b>quality {sample.quality:.2f}</b> "
        f"<span>temperature {sample.temperature:g}</span></header>"
        f'<p class="prompt">{html.escape(sample.prompt)}</p>'
        f'<p class="answer">{html.escape(sample.text) or "<i>nothing</i>"}</p>'
        f"{failed}{shown}</article>"
    )
