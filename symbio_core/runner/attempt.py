"""What is known of an attempt at a phase while it runs, and how it answers its own verdicts.

All of `PhaseProgress` is in a step checkpoint, so that whoever resumes knows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from symbio_core import lifecycle
from symbio_core.records import (
    Adaptation,
    CheckpointRef,
    Confirmation,
    EvalPoint,
    Generation,
    Outcome,
    PhasePlan,
    Record,
    Response,
    Verdict,
)
from symbio_core.runner.watching import Watch
from symbio_core.search import SearchState


class PhaseProgress(Record):
    """How far an attempt has come: what a step checkpoint holds beside the weights."""

    start: CheckpointRef
    spent_before: int
    """Steps the run had spent when the attempt began."""
    line_steps: int = 0
    search_steps: int = 0
    confirm_steps: int = 0
    explored: int = 0
    """Steps spent on generations, those of survivors included."""
    skipped: int = 0
    clipped: int = 0
    points: tuple[EvalPoint, ...] = ()
    begun_nats: tuple[float, ...] = ()
    """Validation loss a batch at the first evaluation (nats a token)."""
    last_nats: tuple[float, ...] = ()
    """The same at the last."""
    responses: tuple[Response, ...] = ()
    generations: tuple[Generation, ...] = ()
    confirmation: Confirmation | None = None
    warm_done: bool = False
    lr_probe: tuple[float, float, float] | None = None
    lr_probe_ci: tuple[float, float] = (0.0, 0.0)
    best_nats: tuple[float, ...] = ()
    shadow_owed: int = 0
    """Steps of a stretch that was interrupted, which the shadow follows at the stretch's end."""
    watch: Watch = Watch()
    seconds: float = 0.0
    """Wall time of earlier processes at this attempt (s)."""

    @property
    def spent(self) -> int:
        """All steps of the attempt so far."""
        return self.line_steps + self.search_steps + self.confirm_steps

    def outcome(self, plan: PhasePlan, bpb: Callable[[tuple[float, ...]], float]) -> Outcome:
        """Return what the phase has measured, with the line's own losses and no checkpoints.

        Args:
            plan: of the attempt.
            bpb: turns validation losses a batch (nats a token) into bits a byte.
        """

        def ref(nats: tuple[float, ...]) -> CheckpointRef:
            return self.start.model_copy(update={"val_nats": nats, "val_bpb": bpb(nats)})

        return Outcome(
            phase=plan.phase,
            attempt=plan.attempt,
            start=ref(self.begun_nats),
            end=ref(self.last_nats),
            best=ref(self.best_nats),
            points=self.points,
            generations=self.generations,
            line_steps=self.line_steps,
            search_steps=self.search_steps,
            skipped=self.skipped,
            clipped=self.clipped,
            lr_probe=self.lr_probe,
            lr_probe_ci=self.lr_probe_ci,
            responses=self.responses,
        )


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What an attempt leaves behind besides its outcome."""

    outcome: Outcome
    search: SearchState
    confirmation: Confirmation | None


def responses_to(
    verdicts: Iterable[Verdict], adaptation: Adaptation, at: PhaseProgress
) -> tuple[Response, ...]:
    """Return the answers to failed verdicts that move a number; each sees what those before moved.

    Args:
        verdicts: passed ones and those that were answered before ask for nothing.
        adaptation: what the phase goes by.
        at: how far it has come.
    """
    answers: list[Response] = []
    for verdict in verdicts:
        if verdict.passed or verdict.answered:
            continue
        adaptation, applied = lifecycle.apply(adaptation, verdict.changes, verdict.name)
        if applied:
            answers.append(
                Response(
                    verdict=verdict,
                    applied=applied,
                    generations=len(at.generations),
                    line_steps=at.line_steps,
                    skipped=at.skipped,
                    clipped=at.clipped,
                    probed=at.lr_probe is not None,
                )
            )
    return tuple(answers)


def in_words(answer: Response) -> str:
    """Tell a person what was answered, and how."""
    moved = ", ".join(f"{c.setting} {c.before:g} → {c.after:g}" for c in answer.applied)
    return f"{answer.verdict.name}: {answer.verdict.reason}; from here on {moved}"
