"""Turns that a life seldom takes, through the real parent flow: waking up, and running late."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from symbio_core import gates, progress
from symbio_core.benches.detectors import lives
from symbio_core.benches.detectors.texts import ten_lines
from symbio_core.config import PHASES, RunConfig, changed
from symbio_core.profiles import smoke
from symbio_core.progress import Progress
from symbio_core.records import Change, Outcome, Verdict
from symbio_core.runner import pace
from tests.flows.test_planted_life import (
    attempts,
    calm,
    digest,
    lived,
    started_from,
    starts,
    stored,
)

__all__ = ["starts", "stored"]  # the fixtures


SHORTER = (Change(setting="rung_scale", op="scale", value=0.5),)


def weights(run: Any) -> str:
    assert run.state.line is not None
    return kept(run, run.state.line)


def kept(run: Any, checkpoint: str) -> str:
    return digest(run.vault.load(checkpoint).member.arrays())


@pytest.fixture
def wolf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector cries wolf once: a healthy end of cambrian is put to sleep.

    Nothing else makes a sleeper better than a line that goes on with the same weights: it is put to
    sleep because it is surely worse than where the run goes on from.
    """
    honest = gates.judge_overfitting

    def crying(outcome: Outcome, *others: Any) -> tuple[Verdict, ...]:
        found = honest(outcome, *others)
        if outcome.phase != "cambrian":
            return found
        return tuple(
            v.model_copy(update={"passed": False, "changes": SHORTER})
            if v.name == "train/validation divergence"
            else v
            for v in found
        )

    monkeypatch.setattr(gates, "judge_overfitting", crying)


SLOW = {"optimiser.schedule": "seed", "phases.oxidation.lr_factor": 0.02}
"""Oxidation learns so slowly that it cannot catch up with the sleeper."""


@pytest.mark.usefixtures("wolf")
def test_a_sleeper_that_is_better_than_the_line_wakes_when_oxidation_ends(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    stored: dict[str, str],
) -> None:
    config = calm(tiny_corpus, tmp_path, **SLOW, **{"gates.regression_frac": 0.99})
    run = lived(config, "sleeper")
    (asleep,) = attempts(run, "cambrian")
    sleeper = asleep.outcome.end.id
    assert (asleep.decision.kind, asleep.decision.dormant) == ("dormant", sleeper)
    assert asleep.decision.start != sleeper
    last = attempts(run, "oxidation")[-1]
    assert (last.decision.rule, last.decision.start) == ("revival", sleeper)
    assert last.outcome.end.val_bpb > asleep.outcome.end.val_bpb
    assert started_from(starts, "endosymbiosis", 1) == stored[sleeper]
    assert started_from(starts, "oxidation", 1) != stored[sleeper]


def by_heart(folder: Path, shares: tuple[float, ...], **changes: Any) -> RunConfig:
    """Return a life on ten repeated lines, which a line of one layer soon knows by heart."""
    base = changed(smoke(), {"storage.root": str(folder / "storage")})
    alone = {
        "without": ("search", "final", "fusion", "averaging"),
        "optimiser.schedule": "seed",
        "gates.n_prompts": 8,
    }
    parts = {f"phases.{name}.share": share for name, share in zip(PHASES, shares, strict=True)}
    return changed(lives.tiny(base, alone | ten_lines(base, folder)), parts | changes)


def test_a_regression_rolls_back_to_a_sleeper_where_that_is_the_best_there_is(
    tmp_path: Path, starts: list[tuple[str, int, str]], stored: dict[str, str]
) -> None:
    slow = dict.fromkeys(("primordial", "oxidation", "endosymbiosis", "homeostasis"), 0.01)
    rates = {"abiogenesis": 0.02, "cambrian": 10.0} | slow
    config = by_heart(
        tmp_path,
        (0.02, 0.68, 0.1, 0.07, 0.07, 0.06),
        **{f"phases.{name}.lr_factor": rate for name, rate in rates.items()},
        **{
            "budget.steps": 520,
            "optimiser.peak_lr": 0.2,
            "optimiser.spike_factor": 1e9,
            "optimiser.clip_norm": 1e6,
        },
    )
    run = lived(config, "woken")
    (asleep,) = attempts(run, "primordial")
    sleeper = asleep.outcome.end.id
    assert (asleep.decision.kind, asleep.decision.dormant) == ("dormant", sleeper)
    ruined, again = attempts(run, "cambrian")
    assert (ruined.decision.rule, ruined.decision.start) == ("regression", sleeper)
    assert again.plan.start == sleeper
    awake = asleep.decision.start
    assert awake is not None
    assert started_from(starts, "cambrian", 1) == stored[awake] != stored[sleeper]
    assert started_from(starts, "cambrian", 2) == stored[sleeper]
    assert sleeper not in {ref.id for ref in run.state.dormant}, "it is awake"


def test_a_sleeper_wakes_where_what_came_after_it_learned_less(
    tmp_path: Path, starts: list[tuple[str, int, str]], stored: dict[str, str]
) -> None:
    # Every phase begins with fresh weights, and oxidation is too short to learn much.
    config = by_heart(
        tmp_path,
        (0.02, 0.02, 0.8, 0.03, 0.07, 0.06),
        **{"budget.steps": 500, "inherit": "knowledge", "phases.cambrian.lr_factor": 0.5},
    )
    run = lived(config, "outlearned")
    (asleep,) = attempts(run, "cambrian")
    sleeper = asleep.outcome.end.id
    assert (asleep.decision.kind, asleep.decision.dormant) == ("dormant", sleeper)
    last = attempts(run, "oxidation")[-1]
    assert (last.decision.rule, last.decision.start) == ("revival", sleeper)
    assert last.outcome.end.val_bpb > asleep.outcome.end.val_bpb
    assert attempts(run, "endosymbiosis")[0].plan.start == sleeper
    assert sleeper not in {ref.id for ref in run.state.dormant}, "it is awake"
    assert kept(run, sleeper) == stored[sleeper], "to the bit, as it was when it fell asleep"


def test_a_phase_that_runs_late_starts_again_from_its_checkpoint_and_loses_nothing(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "MIN_WATCHED_S", 0.5)
    monkeypatch.setattr(pace, "REPORT_EVERY_S", 0.02)
    in_time = lived(calm(tiny_corpus, tmp_path / "a", **{"gates.overtime": 50.0}), "late")
    journal = tmp_path / "b" / "storage" / "runs" / "late" / "journal"

    def slow_to_show(report: Progress) -> None:
        # Whoever shows the progress takes so long over it that the phase comes to a crawl.
        if report.phase == "cambrian" and not any(
            b'"noted"' in segment.read_bytes() for segment in journal.iterdir()
        ):
            time.sleep(0.4)

    silence = progress.subscribe(slow_to_show)
    try:
        run = lived(calm(tiny_corpus, tmp_path / "b", **{"gates.overtime": 3.0}), "late")
    finally:
        silence()
    told = [e["message"] for e in run.events if e["event"] == "noted"]
    assert [m for m in told if m.startswith("phase cambrian takes more than 3× the time")]
    events = [(e["event"], e.get("plan", {}).get("phase")) for e in run.events]
    late = next(i for i, e in enumerate(run.events) if e["event"] == "noted")
    assert ("planned", "cambrian") in events[:late], "it was noticed while the phase was under way"
    ends = [[a.outcome.end.val_nats for a in one.attempts] for one in (run, in_time)]
    assert ends[0] == ends[1]
    assert weights(run) == weights(in_time), "the same bits as a run that was in time"
