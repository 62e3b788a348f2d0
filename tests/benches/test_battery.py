"""The bench of the text gates: what it makes of the equals that passed for an improvement."""

from __future__ import annotations

from typing import Any

import pytest

from symbio_core.benches import battery
from symbio_core.gates.evidence import share_interval


def row(*, sampling: tuple[bool, ...], children: tuple[bool, ...]) -> dict[str, Any]:
    return {
        "order_kept": True,
        "held": [True, True, False, True],
        "children_sd_nats": 0.004,
        "false_sampling": list(sampling),
        "false_children": list(children),
    }


def test_the_headline_is_the_kind_of_equals_that_passed_more_often() -> None:
    calm = (False,) * 9
    rows = [
        row(sampling=(*calm, True), children=calm),
        row(sampling=(*calm, False), children=(*calm, False, True)),
    ]
    summary = battery.summarised(rows)
    assert summary["false_improvement_same_weights_frac"] == pytest.approx(1 / 20)
    assert summary["false_improvement_children_frac"] == pytest.approx(1 / 20)
    assert summary["false_improvement_same_weights_frac_of"] == 20
    rows[0]["false_sampling"][0] = True
    summary = battery.summarised(rows)
    assert summary["worst_false_improvement_frac"] == pytest.approx(2 / 20)
    share = share_interval(2, 20, confidence=0.95)
    assert summary["false_improvement_same_weights_frac_ci_low"] == share.low
    assert summary["false_improvement_same_weights_frac_ci_high"] == share.high
    assert summary["interval_coverage_frac"] == 0.75


def test_equals_of_the_same_weights_are_drawn_in_pairs() -> None:
    assert battery.SAMPLINGS % 2 == 0
