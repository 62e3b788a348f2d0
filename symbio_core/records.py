"""The nouns that travel between rooms: frozen, JSON both ways. Pure.

The data's way: `Candidate` → `Score` → `Generation` → `Outcome` → `Verdict` → `Decision`, with a
`CheckpointRef` wherever weights are meant and a `RunState` that the journal folds into.
"""

from __future__ import annotations

from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from symbio_core.config import PhaseName


class Record(BaseModel):
    """Base of all records: frozen and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Interval(Record):
    """An estimate and the range that holds the truth with the given confidence."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    @property
    def above_zero(self) -> bool:
        """Surely positive."""
        return self.low > 0.0

    @property
    def below_zero(self) -> bool:
        """Surely negative."""
        return self.high < 0.0


class Candidate(Record):
    """A function under trial; `formula` is its name everywhere and parses back."""

    formula: str
    mutation: str = "founder"
    """How it came to be: a mutation's name, `crossover`, `founder` or `immigrant`."""
    parents: tuple[str, ...] = ()
    """Formulas of its parents."""
    nodes: int = 1


class Score(Record):
    """How a member did against the parent's own function on the same batches; lower is better."""

    loss_nats: Interval
    """Paired difference of validation loss to the control (nats a token)."""
    train_nats: float
    """The same difference on the train probe (nats a token)."""
    steps: int
    """Steps the member had trained when it was scored."""
    seconds: float = 0.0
    """Wall time of its training (s)."""
    cost: float = 1.0
    """What a step with its function costs over one with the control's (1 = the same)."""
    cost_nats: float = 0.0
    """What its slower steps are worth at the control's pace of learning (nats a token)."""
    entropy_nats: float = 0.0
    """Weight entropy of its FFN over the control's (nats)."""

    def judged(self, free_energy: float = 0.0) -> Interval:
        """Return the difference to go by: at equal cost, as a free energy F = loss + β·H (nats).

        Args:
            free_energy: β, the price of a nat of weight entropy; 0 leaves the loss alone.
        """
        shift = self.cost_nats + free_energy * self.entropy_nats
        loss = self.loss_nats
        return loss.model_copy(
            update={
                "value": loss.value + shift,
                "low": loss.low + shift,
                "high": loss.high + shift,
            }
        )


class MemberRecord(Record):
    """One member's life in a generation."""

    candidate: Candidate
    score: Score | None
    rung: int
    """Last rung it was scored at, from 0."""
    rank_value: float
    """What it was sorted by, after diversity bonus and complexity price; lower is better."""
    novelty: float = 0.0
    """Functional distance to its nearest sibling (0..1)."""
    gaps: tuple[Interval, ...] = ()
    """After each rung it saw: (validation − train probe) minus the control's (nats a token)."""
    above_frac: float = 0.0
    """Share of its first rung's steps with a training loss above the control's (0..1)."""
    fate: str
    """`won`, `survived`, or why it dropped out."""


class FusionCheck(Record):
    """How the consensus of a generation fared, beside a twin of the control left uncoupled."""

    entropy_nats: tuple[float, ...]
    """Weight entropy of the consensus: at the start and after each rung (nats)."""
    consensus_nats: Interval
    """Validation loss of the consensus minus the best member's, at the end (nats a token)."""
    twin_nats: Interval
    """Validation loss of the uncoupled twin minus where it started (nats a token)."""
    coupled_nats: Interval
    """The same of the control, which is coupled (nats a token)."""


class TransferCheck(Record):
    """A child on inherited weights against its cold twin on fresh ones."""

    formula: str
    warm_nats: Interval
    """Child minus control after the first rung, both on the line's weights (nats a token)."""
    cold_nats: Interval
    """The same two functions after as many steps from one set of fresh weights."""
    worth_nats: float = 0.0
    """What inheriting saves the control then: its loss on fresh weights minus its loss on the
    line's (nats a token)."""
    above_frac: float
    """Share of the warm child's steps above the control (0..1)."""
    steps: int
    """Steps the two cold members cost."""


class Generation(Record):
    """What one generation found."""

    phase: PhaseName
    attempt: int
    index: int
    """Counted over the whole run, from 0."""
    parent: str
    """Formula of the main line when it began."""
    members: tuple[MemberRecord, ...]
    winner: str
    """Formula that the main line goes on with; the parent's own if nothing beat it surely."""
    found: bool
    """Whether the winner beat the control with confidence."""
    front_moved: bool
    """Whether the Pareto front of loss and nodes changed."""
    proposals: int
    """Offspring drawn, duplicates included."""
    duplicates: int
    """Offspring thrown away because the function was known."""
    diversity: float
    """Mean functional distance of the members (0..1)."""
    diversity_ci: float | None = None
    """Half width of its interval: other draws of members would differ (0..1); None of two."""
    entropy_nats: float | None = None
    """Entropy of the population: e to this power counts its different functions (nats)."""
    sync: tuple[float, ...] = ()
    """Kuramoto order parameter r after each rung (0..1)."""
    angle_gaps: tuple[float, ...] = ()
    """Largest gap between neighbouring angles after each rung (rad)."""
    fusion: FusionCheck | None = None
    """What became of the consensus, where members were fused."""
    transfers: tuple[TransferCheck, ...] = ()
    """Children whose inherited weights were put to the test."""
    fusions_accepted: int = 0
    fusions_refused: int = 0
    hidden_lr_factor: float = 1.0
    """What fusion multiplied the effective learning rate by (1 = nothing)."""
    start: Literal["fresh", "warm"] = "warm"
    """Whether members began with fresh weights of a smaller model or with the line's own."""
    steps: int
    """Steps it cost, summed over members, in steps of the run's own model."""
    steps_kept: int
    """Those of them that the surviving line inherited."""
    skipped: int = 0
    """Those of the inherited steps that were skipped as spikes."""
    clipped: int = 0
    """Those of the inherited steps whose gradient was clipped."""
    noise_nats: float = 0.004
    """Standard deviation of a difference measured here around that at the end of the run."""
    seconds: float = 0.0

    def diversity_interval(self, confidence: float) -> Interval | None:
        """Return the diversity with its interval, where there are members enough."""
        if self.diversity_ci is None:
            return None
        value, half = self.diversity, self.diversity_ci
        low, high = max(0.0, value - half), min(1.0, value + half)
        return Interval(value=value, low=low, high=high, confidence=confidence)

    @property
    def typical_novelty(self) -> float:
        """Median distance of members to their nearest better sibling (0..1); 1 for a lone member.

        The best member has no better sibling to be near to, and is left out.
        """
        novelties = sorted(member.novelty for member in self.members)[:-1]
        return median(novelties) if novelties else 1.0


class EvalPoint(Record):
    """The main line measured on the fixed probes."""

    step: int
    """Steps of the run spent so far."""
    line_step: int
    """Steps in the main line's own history."""
    train_nats: float
    """Loss on the fixed train probe (nats a token)."""
    val_nats: float
    """Loss on the fixed validation batches (nats a token)."""
    val_bpb: float
    """The same in bits a byte, comparable across tokenizers."""
    gap_ci: float = 0.0
    """Half width of the interval of val − train (nats)."""
    lr_factor: float = 1.0
    """Learning rate over its peak."""


Weights = Literal["live", "ema", "shadow"]
"""The weights as trained, their moving average, the consensus of those fused with them."""


class CheckpointRef(Record):
    """A stored checkpoint and what is known about it."""

    id: str
    phase: PhaseName
    attempt: int
    step: int
    """Steps of the run spent when it was saved."""
    formula: str
    val_bpb: float
    val_nats: tuple[float, ...] = ()
    """Validation loss a batch on the fixed batches (nats a token), for paired comparison."""
    serves: Weights = "live"
    """Those of its weights that it is judged and shipped by: the best of those it holds."""
    weights_bpb: dict[Weights, float] = {}
    """Validation loss of each of its weights (bits a byte)."""
    quality: Interval | None = None
    """Battery quality (0..1), once judged."""


class Change(Record):
    """One change that a verdict asks for, of one field of `Adaptation`."""

    setting: str
    op: Literal["scale", "add", "set"]
    value: float


class AppliedChange(Record):
    """A change as it was made: the journal's evidence of niche construction."""

    setting: str
    before: float
    after: float
    cause: str
    """Name of the verdict that asked for it."""


class Adaptation(Record):
    """How far verdicts have moved the numbers of the phases to come (1 and 0 mean not at all)."""

    lr_scale: float = Field(1.0, ge=0.03, le=4.0)
    clip_scale: float = Field(1.0, ge=0.1, le=2.0)
    mutation_scale: float = Field(1.0, ge=0.25, le=3.0)
    coupling_scale: float = Field(1.0, ge=0.1, le=3.0)
    fusion_scale: float = Field(1.0, ge=0.0, le=3.0)
    price_scale: float = Field(1.0, ge=0.25, le=8.0)
    rung_scale: float = Field(1.0, ge=0.5, le=3.0)
    extra_depth: float = Field(0.0, ge=-3.0, le=4.0)
    extra_nodes: float = Field(0.0, ge=-6.0, le=12.0)
    immigrants: float = Field(0.1, ge=0.0, le=0.8)
    """Share of a generation drawn afresh (0..1)."""
    open_reserve: float = Field(0.0, ge=0.0, le=1.0)
    """1 opens the reserve pool of leaves."""
    reset_consensus: float = Field(0.0, ge=0.0, le=1.0)
    """1 throws the consensus weights away after each rung instead of carrying them on."""
    inherit_less: float = Field(0.0, ge=0.0, le=1.0)
    """Share of fresh weights mixed into a child's FFN where its function changes (0..1)."""
    perturb_consensus: float = Field(0.0, ge=0.0, le=1.0)
    """Relative noise put on the consensus weights when the next generation starts."""
    extra_patience: float = Field(0.0, ge=0.0, le=4.0)
    """Generations to wait beyond the settings' patience."""


class Sample(Record):
    """One answer of the battery."""

    prompt: str
    text: str
    temperature: float
    quality: float
    """0..1; a sample that failed counts 0."""
    parts: dict[str, float] = {}
    """The measures that quality is made of, each 0..1."""
    error: str | None = None


class Battery(Record):
    """What the model wrote at a gate."""

    samples: tuple[Sample, ...]
    quality: Interval
    longest_verbatim: int
    """Longest run of words copied from the training text (words)."""
    verbatim_frac: float
    """Share of generated words inside copied runs, beyond held-out text's own share (0..1)."""
    seconds: float = 0.0


class LayerReading(Record):
    """What the FFN of one layer does with its signal."""

    weight_entropy_nats: float
    """Entropy of the histogram of its weights: 3.50 while they are normal."""
    effective_rank: float
    """Directions that its hidden states really use."""
    width: int
    """Directions that there are."""
    input_hidden_nats: float
    """Information that hidden states hold about inputs, seen through shadows of one dimension."""
    hidden_output_nats: float
    """Information that outputs hold about hidden states, seen the same way."""


class Verdict(Record):
    """What a gate found."""

    gate: str
    """`battery`, `overfitting` or `plateau`."""
    name: str
    """For example `population collapse`."""
    metric: str
    """What was measured, with its unit."""
    value: float
    interval: Interval | None = None
    threshold: float
    passed: bool
    """True when all is well."""
    reason: str
    """One sentence a person understands."""
    changes: tuple[Change, ...] = ()
    """The suggested response."""
    answered: bool = False
    """Whether the phase answered all of this evidence while it ran, so that it is not again."""


class Response(Record):
    """A verdict that its own phase answered: the rest of the phase ran under other numbers."""

    verdict: Verdict
    applied: tuple[AppliedChange, ...]
    generations: int
    """Generations of the attempt by then; later ones are new evidence."""
    line_steps: int
    """Steps of the main line in the attempt by then."""
    skipped: int
    """Those of them that were skipped as spikes."""
    clipped: int
    """Those of them whose gradient was clipped."""
    probed: bool
    """Whether the learning-rate probe was held by then."""


class Outcome(Record):
    """What one attempt at a phase measured."""

    phase: PhaseName
    attempt: int
    stopped: Literal["done", "diverged", "steps", "seconds"] = "done"
    """`done`, or what ended it early."""
    reason: str = ""
    """One sentence where it ended early."""
    start: CheckpointRef
    end: CheckpointRef
    best: CheckpointRef
    """Lowest validation loss seen in the phase."""
    points: tuple[EvalPoint, ...]
    generations: tuple[Generation, ...] = ()
    line_steps: int
    """Steps of the main line."""
    search_steps: int = 0
    confirm_steps: int = 0
    skipped: int = 0
    """Main-line steps skipped as spikes."""
    clipped: int = 0
    """Main-line steps whose gradient was clipped."""
    lr_probe: tuple[float, float, float] | None = None
    """Validation loss after a short probe at learning rate × 0.5, × 1 and × 2 (nats a token)."""
    lr_probe_ci: tuple[float, float] = (0.0, 0.0)
    """Half widths of the paired intervals of the first and the last beside the second (nats)."""
    responses: tuple[Response, ...] = ()
    """Verdicts that were answered while the phase ran, in order."""
    alarms: tuple[str, ...] = ()
    """Monitors that fired, in words."""
    layers: tuple[LayerReading, ...] = ()
    """The FFNs at the end of the phase, first layer first."""
    tokens: int = 0
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Everything the phase spent (optimiser steps)."""
        return self.line_steps + self.search_steps + self.confirm_steps


SURE_BELOW = 0.05
"""A corrected p-value below this counts as sure."""


class Contender(Record):
    """One function of the final."""

    name: str
    formula: str
    nats: tuple[float, ...]
    """Confirm-split loss, one value a seed (nats a token)."""
    bpb: float
    seconds_per_step: float
    cost: float = 1.0
    """What a step of it costs over one of the winner's (1 = the same)."""
    nats_same_cost: tuple[float, ...] = ()
    """The same loss after as much cost as the winner's steps took; empty where that is as many."""


class Effect(Record):
    """The winner against one fixed function."""

    against: str
    loss_nats: Interval
    """Winner minus the other (nats a token); negative is better."""
    bpb: Interval
    """The same in bits a byte."""
    p_value: float
    """Two-sided, corrected for the number of comparisons (Holm)."""


class Confirmation(Record):
    """The answer to the one question: did the evolved function win, by how much, how sure?"""

    winner: str
    """Formula the search proposes."""
    contenders: tuple[Contender, ...]
    effects: tuple[Effect, ...]
    effects_seconds: tuple[Effect, ...] = ()
    """The same with each fixed function trained for as long as the winner took."""
    scale: float = 1.0
    """Depth and width of the model that was trained, over the run's own (0..1)."""
    seeds: int
    steps_each: int
    steps: int
    seconds: float
    verdict: Literal["evolved wins", "fixed wins", "no difference"]
    best_fixed: str
    sentence: str


class PhasePlan(Record):
    """What to run next; made by `lifecycle.plan`."""

    phase: PhaseName
    attempt: int
    start: str | None
    """Checkpoint to start from; None means fresh weights."""
    steps: int
    """All the steps this attempt may spend."""
    confirm_steps: int = 0
    """Those of them reserved for the confirmation."""
    begin: float
    """Position in the schedule at which the phase starts (0..1)."""
    end: float
    adaptation: Adaptation = Adaptation()
    lr_scale: float = 1.0
    """Extra factor after a divergence."""


class Decision(Record):
    """What the run does after a phase."""

    kind: Literal["advance", "repeat", "rollback", "dormant", "finish", "ask"]
    """`dormant` stores the end as dormant and advances from the best-validation checkpoint."""
    rule: str
    """Which rule matched."""
    reason: str
    start: str | None
    """Checkpoint the run goes on from."""
    dormant: str | None = None
    adaptation: Adaptation = Adaptation()
    applied: tuple[AppliedChange, ...] = ()
    flagged: bool = False
    """Attempts were exhausted and the run went on all the same."""


class MachineCost(Record):
    """What one rented machine of a run cost, as it was last told."""

    name: str
    zone: str
    machine_type: str
    spot: bool
    seconds: float
    """How long it ran (s)."""
    billed_s: int
    """Seconds that are charged."""
    usd: float
    """What it cost ($)."""
    usd_per_hour: float
    """Its price, its disk included ($/h)."""
    price_note: str
    """Where the price comes from, with its day."""
    ended: str
    """What ended it, why it was refused, or `running`."""
    is_over: bool
    """Nothing of it is left, so its figures are final."""
    image: str = ""
    """The exact image it was made from; empty where it was never granted, or in old journals."""


class RunState(Record):
    """Where a run stands: a fold over its journal."""

    phase_index: int = 0
    attempt: int = 1
    rollbacks: int = 0
    steps_spent: int = 0
    seconds_spent: float = 0.0
    line: str | None = None
    """Checkpoint the next phase starts from."""
    best: CheckpointRef | None = None
    """Best checkpoint so far: judged quality first, validation loss where that is level."""
    best_text: CheckpointRef | None = None
    """The one of highest judged quality so far, which a regression is measured against."""
    dormant: tuple[CheckpointRef, ...] = ()
    known: dict[str, CheckpointRef] = {}
    """Every checkpoint a decision may still name."""
    adaptation: Adaptation = Adaptation()
    lr_scale: float = 1.0
    flags: tuple[str, ...] = ()
    confirmed: bool = False
    """Whether the confirmation has been held."""
    machines: tuple[MachineCost, ...] = ()
    """Every rented machine that the run ordered, in order; none on a machine of one's own."""
    finished: str | None = None
    """Why the run ended, once it has."""


class Attempt(Record):
    """One attempt at a phase from plan to decision, as the journal tells it."""

    plan: PhasePlan
    outcome: Outcome
    battery: Battery
    verdicts: tuple[Verdict, ...]
    decision: Decision


class Environment(Record):
    """Where a run ran."""

    symbio: str
    """Version."""
    python: str
    torch: str
    device: str
    cpu_count: int
    threads: int
    precision: str
    platform: str
