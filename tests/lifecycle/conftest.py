"""Facts of a life: checkpoints, outcomes, verdicts, and a configuration that pays for all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from symbio_core.config import RunConfig, changed
from symbio_core.lifecycle import plan
from symbio_core.records import (
    Battery,
    CheckpointRef,
    Decision,
    Interval,
    Outcome,
    PhasePlan,
    RunState,
    Verdict,
)

NATS = (2.0, 2.1, 1.9, 2.05, 1.95, 2.0)
"""Losses of the line on six fixed batches."""


def ref(name: str, bpb: float = 2.0, **more: Any) -> CheckpointRef:
    facts: dict[str, Any] = {"phase": "cambrian", "attempt": 1, "step": 10, "formula": "gelu(x)"}
    return CheckpointRef(id=name, val_bpb=bpb, **(facts | more))


def outcome(plan: PhasePlan, **more: Any) -> Outcome:
    facts: dict[str, Any] = {
        "start": ref(plan.start or "first"),
        "end": ref("end", 1.9, val_nats=NATS),
        "best": ref("low", 1.8, val_nats=NATS),
        "points": (),
        "line_steps": plan.steps - plan.confirm_steps,
        "confirm_steps": plan.confirm_steps,
    }
    return Outcome(phase=plan.phase, attempt=plan.attempt, **(facts | more))


def verdict(name: str, passed: bool, **more: Any) -> Verdict:
    facts: dict[str, Any] = {
        "gate": "battery", "metric": "quality", "value": 0.5, "threshold": 0.0,
        "reason": f"{name} was {'fine' if passed else 'not fine'}",
    }  # fmt: skip
    return Verdict(name=name, passed=passed, **(facts | more))


def quality(value: float, half: float = 0.02) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def battery(interval: Interval) -> Battery:
    return Battery(samples=(), quality=interval, longest_verbatim=0, verbatim_frac=0.0)


def at(config: RunConfig, phase_index: int, **more: Any) -> tuple[RunState, PhasePlan]:
    facts: dict[str, Any] = {"steps_spent": 100, "line": "line", "known": {"line": ref("line")}}
    state = RunState(phase_index=phase_index, **(facts | more))
    planned = plan(config, state)
    assert planned is not None
    return state, planned


def kind_and_rule(decision: Decision) -> tuple[str, str]:
    return decision.kind, decision.rule


@pytest.fixture(scope="session")
def facts() -> SimpleNamespace:
    return SimpleNamespace(
        ref=ref, outcome=outcome, verdict=verdict, quality=quality, battery=battery, at=at,
        kind_and_rule=kind_and_rule, nats=NATS, good=(verdict("progress", True),),
    )  # fmt: skip


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return changed(RunConfig(), {"budget.steps": 10_000})
