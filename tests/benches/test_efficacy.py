"""The bench of the question that symbio exists for: what it makes of the losses of its arms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from symbio_core.benches import efficacy
from symbio_core.monitors import t_interval

SYMBIO = (1.75, 1.74, 1.77)
FIXED = {"GELU": (1.74, 1.72, 1.76), "SiLU": (1.76, 1.76, 1.77), "ReLU²": (1.75, 1.73, 1.76)}


def arm(seed: int, loss: float, **more: Any) -> dict[str, Any]:
    return {
        "seed": seed,
        "val_bpb": loss,
        "confirm_bpb": loss + 0.01,
        "steps": 10,
        "seconds": 1.0,
    } | more


@pytest.fixture
def data() -> dict[str, Any]:
    fixed = [arm(s, loss, name=n) for n, all_ in FIXED.items() for s, loss in enumerate(all_)]
    symbio = [arm(seed, loss) for seed, loss in enumerate(SYMBIO)]
    return {"symbio": symbio, "fixed_steps": fixed[::-1], "fixed_seconds": fixed}


def test_symbio_is_held_against_the_best_fixed_function_seed_by_seed(data: dict[str, Any]) -> None:
    summary = efficacy._summary(data)
    assert summary["best_fixed_steps"] == summary["best_fixed_seconds"] == "GELU"
    found = t_interval(np.array(SYMBIO) - np.array(FIXED["GELU"]))
    for split in ("delta_bpb", "delta_confirm_bpb"):
        key = f"{split}_vs_best_fixed_steps"
        assert summary[key] == pytest.approx(found.value)
        assert summary[f"{key}_ci_low"] == pytest.approx(found.low)
        assert summary[f"{key}_ci_high"] == pytest.approx(found.high)
    relu2 = np.array(SYMBIO) - np.array(FIXED["ReLU²"])
    assert summary["delta_bpb_vs_relu2_seconds"] == pytest.approx(relu2.mean())


def test_the_table_shows_every_arm_on_both_bases(data: dict[str, Any]) -> None:
    table = efficacy._table(data | {"summary": efficacy._summary(data)})
    assert table.row_count == 1 + 2 * len(FIXED) + 2
