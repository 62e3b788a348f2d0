"""What Prefect shows and tells of a run: pages for people, events for automations."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from symbio_core.console import duration
from symbio_core.records import Attempt, Interval, Verdict
from symbio_core.report import FinalReport, change_in_words
from tasks.working import run_at

Payload = dict[str, str | float | bool | None]


@task(name="show phase", cache_policy=NO_CACHE, persist_result=False)
async def show_phase(root: str, run_id: str) -> None:
    """Put the last attempt on the run's page: its story, its samples and a table of verdicts."""
    attempt = run_at(root, run_id).attempts[-1]
    phase = attempt.plan.phase
    await acreate_markdown_artifact(
        page(attempt), key=f"phase-{phase}", description=f"{run_id}: {phase}"
    )
    await acreate_table_artifact(
        [row(verdict) for verdict in attempt.verdicts],
        key=f"verdicts-{phase}",
        description=f"{run_id}: what the gates found after {phase}",
    )


@task(name="show report", cache_policy=NO_CACHE, persist_result=False)
async def show_report(root: str, run_id: str, report: FinalReport) -> None:
    """Put the run's answer on its page."""
    folder = f"{root}/runs/{run_id}"
    text = (
        f"# {run_id}\n\n**{report.verdict}**\n\n"
        f"- report: `{folder}/report/report.html`\n"
        f"- figures: `{folder}/report/final-report.json`\n"
        f"- model: `{folder}/model/`, talk to it by `symbio sample {run_id}`\n"
    )
    await acreate_markdown_artifact(text, key="final-report", description=run_id)


def announce(event: str, run_id: str, payload: Payload) -> None:
    """Emit a custom event about the run, that automations and notifications can hang on."""
    emit_event(
        event,
        resource={"prefect.resource.id": f"symbio.run.{run_id}", "prefect.resource.name": run_id},
        payload=payload,
    )


def page(attempt: Attempt) -> str:
    """Tell an attempt in Markdown: figures, decision, changes, best and worst sample."""
    outcome, decision, battery = attempt.outcome, attempt.decision, attempt.battery
    again = f", attempt {outcome.attempt}" if outcome.attempt > 1 else ""
    at_once = [change for response in outcome.responses for change in response.applied]
    lines = [
        f"# {outcome.phase}{again}",
        "",
        f"**{decision.kind}**: {decision.reason}",
        "",
        f"- activation: `{outcome.end.formula}`",
        f"- validation: {outcome.start.val_bpb:.4f} → {outcome.end.val_bpb:.4f} bits a byte",
        f"- quality of its text: {battery.quality.value:.3f} {_range(battery.quality)}",
        f"- steps: {outcome.line_steps} of the line, {outcome.search_steps} of search, "
        f"{outcome.confirm_steps} of the final",
        f"- time: {duration(outcome.seconds)}",
        *(f"- fusion: {fusion}" for fusion in _fusion(attempt)),
        *(
            f"- {change_in_words(change)} (`{change.setting}` {change.before:g} → "
            f"{change.after:g}), because of {change.cause}"
            for change in (*at_once, *decision.applied)
        ),
        *(f"- alarm: {alarm}" for alarm in outcome.alarms),
    ]
    ranked = sorted(battery.samples, key=lambda sample: sample.quality)
    for title, sample in (("Best", ranked[-1]), ("Worst", ranked[0])) if ranked else ():
        text = sample.error or sample.text
        lines += ["", f"## {title} of {len(ranked)} samples ({sample.quality:.2f})", ""]
        lines += [f"> {line}" for line in f"**{sample.prompt}** {text}".splitlines()]
    return "\n".join(lines)


def _fusion(attempt: Attempt) -> list[str]:
    generations = attempt.outcome.generations
    taken = sum(g.fusions_accepted for g in generations)
    pulls = taken + sum(g.fusions_refused for g in generations)
    sync = [g.sync[-1] for g in generations if g.sync]
    in_step = f", members in step to r = {sync[-1]:.2f} at the end" if sync else ""
    return [f"{taken} of {pulls} pulls to the consensus taken{in_step}"] if pulls else []


def row(verdict: Verdict) -> dict[str, str]:
    """Return a verdict as a row of a table."""
    return {
        "gate": verdict.gate,
        "verdict": verdict.name,
        "passed": "yes" if verdict.passed else "NO",
        "metric": verdict.metric,
        "value": f"{verdict.value:.4g}",
        "interval": _range(verdict.interval) if verdict.interval else "",
        "threshold": f"{verdict.threshold:.4g}",
        "reason": verdict.reason,
    }


def _range(interval: Interval) -> str:
    return f"[{interval.low:.3g}, {interval.high:.3g}]"
