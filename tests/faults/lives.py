"""The shortest life with everything in it: searches, fusion, a final, batteries, many saves."""

from __future__ import annotations

from pathlib import Path

from symbio_core.config import RunConfig, changed
from symbio_core.runner.killing import shortened
from tests.conftest import tiny

SEARCHES = ("primordial", "cambrian", "oxidation")
SHARES = {
    "abiogenesis": 0.05,
    "primordial": 0.2,
    "cambrian": 0.25,
    "oxidation": 0.25,
    "endosymbiosis": 0.15,
    "homeostasis": 0.1,
}


def shortest(corpus: Path, root: Path) -> RunConfig:
    """Return a life of about 300 steps and a few seconds, with a save every 15 steps."""
    changes: dict[str, object] = {f"phases.{name}.share": share for name, share in SHARES.items()}
    for name in SEARCHES:
        changes |= {f"phases.{name}.population": 2, f"phases.{name}.rung_steps": 2}
    changes |= {
        "model.n_embd": 16,
        "model.context": 16,
        "optimiser.batch_size": 4,
        "gates.new_tokens": 8,
        "gates.eval_every": 10,
        "confirm.steps_frac": 0.3,
        "confirm.warm_steps": 2,
    }
    short = shortened(changed(tiny(corpus, root), changes), str(root))
    return changed(
        short, {"confirm.steps_frac": 0.3, "budget.steps": 301, "storage.save_every": 15}
    )
