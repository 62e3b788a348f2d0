"""What final-report.json holds, as a model with its JSON schema. Pure."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import JsonValue

from symbio_core.config import PhaseName
from symbio_core.records import (
    AppliedChange,
    Confirmation,
    Environment,
    Interval,
    MachineCost,
    Weights,
)
from symbio_core.report.schema_search import (
    CandidateSummary,
    FusionSummary,
    ReportPart,
    Span,
    TransferSummary,
)


class Steps(ReportPart):
    """Optimiser steps of one member, by what they were spent on."""

    line: int
    """Training the main line."""
    search: int
    """Training candidates and their controls."""
    confirm: int
    """Training the contenders of the final from fresh weights."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.line + self.search + self.confirm


class VerdictSummary(ReportPart):
    """What one gate found."""

    gate: str
    """`battery`, `overfitting` or `plateau`."""
    name: str
    passed: bool
    """True when all is well."""
    metric: str
    """What was measured, with its unit."""
    value: float | None
    interval: Interval | None
    threshold: float | None
    reason: str


class DecisionSummary(ReportPart):
    """What the run did after an attempt, and why."""

    kind: Literal["advance", "repeat", "rollback", "dormant", "finish", "ask"]
    rule: str
    """The rule that matched first."""
    reason: str
    start: str | None
    """Checkpoint the run went on from."""
    flagged: bool
    """Attempts were exhausted and the run went on all the same."""


class AttemptSummary(ReportPart):
    """One attempt at a phase."""

    phase: PhaseName
    attempt: int
    formula: str
    """Activation of the main line at the attempt's end."""
    steps: Steps
    train_nats: Span
    """Loss on the fixed train probe (nats a token)."""
    val_nats: Span
    """Loss on the fixed validation batches (nats a token)."""
    val_bpb: float | None
    """Validation loss at the end (bits a byte)."""
    quality: Interval | None
    """Battery quality (0..1)."""
    longest_verbatim: int
    """Longest run of words copied from the training text (words)."""
    verbatim_frac: float | None
    """Share of generated words inside copied runs, beyond held-out text's own (0..1)."""
    verdicts: tuple[VerdictSummary, ...]
    decision: DecisionSummary
    generations: int
    """Generations of the search."""
    candidates: int
    """Candidates that were trained and scored."""
    skipped: int
    """Main-line steps skipped as spikes."""
    stopped: Literal["done", "diverged", "steps", "seconds"]
    stop_reason: str
    alarms: tuple[str, ...]
    """Monitors that fired, in words."""
    fusion: FusionSummary | None
    """None where no member was pulled to a consensus."""
    transfers: tuple[TransferSummary, ...]
    tokens: int
    seconds: float
    tokens_per_s: float | None


class Efficiency(ReportPart):
    """What a phase's time bought, all its attempts together (ecological pressure)."""

    phase: PhaseName
    attempts: int
    fall_nats: float | None
    """Fall of the validation loss that the run kept: tries it went back from count 0 (nats a
    token)."""
    seconds: float
    """Wall time (s)."""
    gpu_seconds: float
    """Wall time on a GPU (s); 0 on a CPU."""
    fall_nats_per_s: float | None
    """Fall of the validation loss a second of wall time (nats a token and second)."""


class CheckpointSummary(ReportPart):
    """A stored checkpoint."""

    id: str
    phase: PhaseName
    attempt: int
    step: int
    """Steps of the run spent when it was saved."""
    formula: str
    val_bpb: float | None
    serves: Weights
    """Those of its weights that it is judged by, and that are exported where it ships."""
    weights_bpb: dict[Weights, float | None]
    """Validation loss of each of its weights (bits a byte)."""
    quality: Interval | None


class NumberChange(ReportPart):
    """What a change made of a phase's own number."""

    phase: PhaseName
    attempt: int
    before: float
    """The number as it would have been without the change, in its own unit."""
    after: float


class ChangeSummary(ReportPart):
    """A number that a verdict moved: the evidence of niche construction."""

    phase: PhaseName
    """Phase whose gates asked for the change."""
    attempt: int
    step: int | None
    """Step of the phase's line after which it was made while the phase ran; None at its end."""
    change: AppliedChange
    number: str
    """What a person calls it."""
    reason: str
    """What was seen, in a sentence; empty where nothing but the cause's name is known."""
    seen: VerdictSummary | None
    """The verdict that caused it; None where the decision itself did."""
    effects: tuple[NumberChange, ...]
    """The attempts that ran under it, until a later decision moved the number again."""


class Totals(ReportPart):
    """What the run spent and got."""

    steps: Steps
    budget_steps: int
    """Steps the run was allowed."""
    seconds: float
    """Wall time of all attempts (s)."""
    gpu_seconds: float
    """Wall time on a GPU (s); 0 on a CPU."""
    tokens: int
    tokens_per_s: float | None
    attempts: int
    rollbacks: int
    generations: int
    candidates: int
    fall_nats: float | None
    """Validation loss of the first evaluation minus that of the last (nats a token)."""
    fall_nats_per_s: float | None


class CostSummary(ReportPart):
    """What the rented machines of a run cost."""

    machines: tuple[MachineCost, ...]
    """Every one that was ordered, in order, those that were refused included."""
    seconds: float
    """How long they ran (s)."""
    billed_s: int
    """Seconds that are charged."""
    usd: float
    """All of them together ($)."""
    cap_usd: float | None
    """The most they were allowed to cost ($); None where there was no cap."""


class FinalReport(ReportPart):
    """The whole answer of a run, as final-report.json keeps it."""

    schema_version: Literal[1] = 1
    run_id: str
    verdict: str
    """One line: effect, certainty, cost; or why there is no answer."""
    winner: str
    """Formula the search proposes."""
    shipped: CheckpointSummary
    """The checkpoint that the exported model was made from."""
    confirmation: Confirmation | None
    no_confirmation: str | None
    """Why there is no confirmation; None where there is one."""
    phases: tuple[AttemptSummary, ...]
    applied: tuple[ChangeSummary, ...]
    efficiency: tuple[Efficiency, ...]
    candidates: tuple[CandidateSummary, ...]
    """Every candidate that was trained and scored."""
    dormant: tuple[CheckpointSummary, ...]
    totals: Totals
    cost: CostSummary | None
    """None where the run rented no machine."""
    flags: tuple[str, ...]
    finished: str
    """Why the run ended."""
    started: str
    """ISO 8601."""
    ended: str
    """ISO 8601."""
    environment: Environment
    config: dict[str, JsonValue]
    """Every setting of the run."""


def to_json(report: FinalReport) -> str:
    """Return the text of final-report.json: the same bytes for the same report."""
    data = report.model_dump(mode="json")
    return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) that every final-report.json satisfies."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | FinalReport.model_json_schema(mode="serialization")


def schema_text() -> str:
    """Return the text of the committed final-report.schema.json."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=2, sort_keys=True) + "\n"
