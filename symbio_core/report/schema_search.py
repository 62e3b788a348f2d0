"""Parts of final-report.json that tell of the search, and what all parts share. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from symbio_core.config import PhaseName
from symbio_core.records import Interval


class ReportPart(BaseModel):
    """Base of all parts: frozen, closed to unknown keys, and free of NaN (None stands for it)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Span(ReportPart):
    """A measure at the start and at the end of something; None where it was not finite."""

    start: float | None
    end: float | None

    @property
    def fall(self) -> float | None:
        """How far it fell from start to end; None where either end is unknown."""
        if self.start is None or self.end is None:
            return None
        return self.start - self.end


class ConsensusSummary(ReportPart):
    """How the consensus of one generation fared; a measure is None where it was not finite."""

    generation: int
    """Counted over the whole run, from 0."""
    entropy_nats: tuple[float | None, ...]
    """Weight entropy of the consensus: at the start and after each rung (nats)."""
    over_best_nats: Interval | None
    """Validation loss of the consensus minus the best member's (nats a token)."""
    coupled_nats: Interval | None
    """Change of the validation loss of the control, which is pulled (nats a token)."""
    alone_nats: Interval | None
    """The same of its twin, which was left alone."""


class FusionSummary(ReportPart):
    """How the members of an attempt were kept together."""

    sync: tuple[float | None, ...]
    """Kuramoto order parameter r after each rung, mean over the generations (0..1)."""
    widest_gap_rad: float | None
    """Largest gap between neighbouring angles that was seen (rad)."""
    accepted: int
    """Pulls to the consensus that did no harm on validation."""
    refused: int
    """Pulls that would have, and were undone."""
    hidden_lr_factor: float | None
    """What the pulls multiplied the effective learning rate by, mean over accepted pulls."""
    checks: tuple[ConsensusSummary, ...]


class TransferSummary(ReportPart):
    """A child on inherited weights against its cold twin on fresh ones."""

    generation: int
    formula: str
    warm_nats: Interval | None
    """Child minus control, both on inherited weights (nats a token)."""
    cold_nats: Interval | None
    """The same two functions on fresh weights (nats a token)."""
    above_frac: float | None
    """Share of the child's steps above the control (0..1)."""
    steps: int
    """Steps that the check cost."""


class CandidateSummary(ReportPart):
    """What the time of one candidate bought (ecological pressure)."""

    generation: int
    """Counted over the whole run, from 0."""
    phase: PhaseName
    attempt: int
    formula: str
    gain_nats: float | None
    """Validation loss of the control minus the candidate's (nats a token)."""
    cost: float | None
    """What a step with it costs over one with the control's function (1 = the same)."""
    gain_same_cost_nats: float | None
    """The gain once its slower steps are paid for, which ranking goes by (nats a token)."""
    seconds: float
    """Wall time of its training (s)."""
    gain_nats_per_s: float | None
    """Gain over the control a second of its training (nats a token and second)."""
