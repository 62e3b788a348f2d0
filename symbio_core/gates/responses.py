"""What a phase has already answered is no new evidence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from symbio_core.records import Generation, Outcome, Response, Verdict

Judge = Callable[[Outcome, Sequence[Generation]], tuple[Verdict, ...]]


def beside_responses(
    judge: Judge, outcome: Outcome, history: Sequence[Generation]
) -> tuple[Verdict, ...]:
    """Return the verdicts on an attempt; what its phase has answered so far is marked.

    A verdict that was answered is judged once more on what came after the answer. If that alone
    fails, it is a new one; else the answer stands for it.

    Args:
        judge: gives the verdicts on an outcome, with the generations of earlier attempts.
        outcome: what the attempt measured.
        history: generations of earlier attempts, oldest first.
    """
    last = {answer.verdict.name: answer for answer in outcome.responses}
    return tuple(
        verdict
        if verdict.passed or verdict.name not in last
        else _anew(judge, outcome, history, verdict, last[verdict.name])
        for verdict in judge(outcome, history)
    )


def _anew(
    judge: Judge,
    outcome: Outcome,
    history: Sequence[Generation],
    verdict: Verdict,
    answer: Response,
) -> Verdict:
    known = outcome.generations[: answer.generations]
    changes: dict[str, object] = {
        "generations": outcome.generations[answer.generations :],
        "line_steps": outcome.line_steps - answer.line_steps,
        "skipped": outcome.skipped - answer.skipped,
        "clipped": outcome.clipped - answer.clipped,
    }
    if answer.probed:
        changes["lr_probe"] = None
    later = judge(outcome.model_copy(update=changes), (*history, *known))
    new = next(one for one in later if one.name == verdict.name)
    return verdict.model_copy(update={"answered": True}) if new.passed else new
