"""Every turn of a life through the real parent flow, its cause planted in real training.

Each test asserts on the journal and on the weights: the sha256 of what an attempt really starts
from is that of the checkpoint the decision named.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.autonomous import symbio
from symbio_core import runner
from symbio_core.config import RunConfig, changed
from symbio_core.records import Attempt
from symbio_core.runner import Run
from symbio_core.runner.phase import PhaseRun
from symbio_core.runner.vault import Vault
from tests.conftest import tiny

CALM = {"without": ["search", "final"], "budget.steps": 900}
"""A short life of the line alone: what is planted is all that happens."""


def lived(config: RunConfig, name: str) -> Run:
    asyncio.run(symbio(config, name))
    return runner.reopen(config.storage.root, name)


def calm(corpus: Path, root: Path, **changes: Any) -> RunConfig:
    return changed(tiny(corpus, root / "storage"), CALM | changes)


def digest(arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    """Return the sha256 of weights, optimiser state and all else a member goes on from."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode() + arrays[name].tobytes())
    return total.hexdigest()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Phase, attempt and digest of what every attempt really began with."""
    seen: list[tuple[str, int, str]] = []
    begin = PhaseRun.run

    def noted(self: PhaseRun) -> Any:
        seen.append((self.plan.phase, self.plan.attempt, digest(self.line.arrays())))
        return begin(self)

    monkeypatch.setattr(PhaseRun, "run", noted)
    return seen


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Digest of what every checkpoint holds, read back from the storage as soon as it is there.

    At the end of a life many are gone.
    """
    seen: dict[str, str] = {}
    save = Vault._save_line

    def noted(self: Vault, *args: Any, **kwargs: Any) -> Any:
        ref = save(self, *args, **kwargs)
        seen[ref.id] = digest(self.load(ref.id).member.arrays())
        return ref

    monkeypatch.setattr(Vault, "_save_line", noted)
    return seen


def attempts(run: Run, phase: str) -> list[Attempt]:
    return [a for a in run.attempts if a.plan.phase == phase]


def started_from(starts: list[tuple[str, int, str]], phase: str, attempt: int) -> str:
    return next(found for name, number, found in starts if (name, number) == (phase, attempt))


def test_spikes_in_a_third_of_the_steps_stop_the_phase_early_and_halve_the_learning_rate(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    stored: dict[str, str],
) -> None:
    # A step counts as a spike as soon as it is above the median: half of them are.
    config = calm(tiny_corpus, tmp_path, **{"optimiser.spike_factor": 1.0001, "budget.steps": 1400})
    run = lived(config, "spikes")
    first, second = attempts(run, "primordial")
    assert first.outcome.stopped == "diverged"
    assert first.outcome.steps < first.plan.steps / 2, "it stopped early"
    assert (first.decision.kind, first.decision.rule) == ("repeat", "diverged")
    assert second.plan.lr_scale == first.plan.lr_scale / 2
    assert second.plan.adaptation.clip_scale < first.plan.adaptation.clip_scale
    assert second.plan.start == first.plan.start
    assert second.plan.start is not None
    assert started_from(starts, "primordial", 2) == stored[second.plan.start]
    assert second.decision.rule == "exhausted"
    assert any(flag.startswith("primordial") for flag in run.state.flags)


def test_a_phase_that_ruins_what_the_model_writes_is_rolled_back_to_the_best_weights(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    stored: dict[str, str],
) -> None:
    gentle = dict.fromkeys(("abiogenesis", "primordial", "oxidation"), 0.05)
    rates = {f"phases.{name}.lr_factor": rate for name, rate in gentle.items()}
    config = calm(
        tiny_corpus,
        tmp_path,
        **rates,
        **{
            "phases.cambrian.lr_factor": 10.0,
            "optimiser.schedule": "seed",
            "optimiser.peak_lr": 0.2,
            "optimiser.spike_factor": 1e9,
            "optimiser.clip_norm": 1e6,
        },
    )
    run = lived(config, "ruined")
    ruined, again = attempts(run, "cambrian")
    best = attempts(run, "primordial")[-1].outcome.end
    assert (ruined.decision.kind, ruined.decision.rule) == ("rollback", "regression")
    assert ruined.battery.quality.value < 0.7 * best_quality(run, "primordial")
    assert ruined.decision.start == again.plan.start == best.id
    assert ruined.plan.start == best.id
    assert started_from(starts, "cambrian", 2) == stored[best.id]
    assert stored[ruined.outcome.end.id] != stored[best.id], "there was something to go back from"
    assert ruined.decision.applied, "the same again would be no second try"
    assert again.decision.rule == "exhausted"
    assert started_from(starts, "oxidation", 1) == stored[best.id]
    assert run.state.rollbacks == 1


def best_quality(run: Run, phase: str) -> float:
    return attempts(run, phase)[-1].battery.quality.value


def test_a_phase_that_learns_nothing_is_repeated_with_another_niche_and_then_flagged(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    stored: dict[str, str],
) -> None:
    config = calm(
        tiny_corpus,
        tmp_path,
        **{"optimiser.schedule": "seed", "phases.cambrian.lr_factor": 1e-9},
    )
    run = lived(config, "still")
    first, second = attempts(run, "cambrian")
    assert (first.decision.kind, first.decision.rule) == ("repeat", "gate not passed")
    assert first.decision.applied
    assert second.plan.adaptation != first.plan.adaptation
    assert first.decision.start is not None
    assert started_from(starts, "cambrian", 2) == stored[first.decision.start]
    assert second.decision.flagged
    relaxed = [c for a in run.attempts for c in a.decision.applied if c.cause == "relaxation"]
    assert relaxed, "later phases forget what that one needed"


def test_a_model_that_learns_by_heart_sleeps_and_the_run_goes_on_from_its_lowest_loss(
    tiny_corpus: Path,
    tmp_path: Path,
    starts: list[tuple[str, int, str]],
    stored: dict[str, str],
) -> None:
    small = tmp_path / "small.txt"
    paragraphs = tiny_corpus.read_text(encoding="utf-8").split("\n\n")[:110]
    small.write_text("\n\n".join(paragraphs), encoding="utf-8")
    hot = {f"phases.{name}.lr_factor": 1.0 for name in ("primordial", "cambrian", "oxidation")}
    config = calm(
        small,
        tmp_path,
        **hot,
        **{
            "budget.steps": 2500,
            "model.n_embd": 64,
            "optimiser.schedule": "seed",
            "optimiser.peak_lr": 0.005,
            "optimiser.weight_decay": 0.0,
            "data.validation_frac": 0.2,
            "data.confirm_frac": 0.2,
            "gates.eval_every": 40,
        },
    )
    run = lived(config, "by-heart")
    (asleep,) = [a for a in run.attempts if a.decision.kind == "dormant"]
    verdict = next(v for v in asleep.verdicts if v.name == "train/validation divergence")
    assert not verdict.passed
    assert verdict.interval is not None
    assert verdict.interval.low > 0.0
    assert asleep.decision.dormant == asleep.outcome.end.id
    assert asleep.decision.start != asleep.outcome.end.id
    after = run.attempts[run.attempts.index(asleep) + 1]
    began = started_from(starts, after.plan.phase, after.plan.attempt)
    assert asleep.decision.start is not None
    assert began == stored[asleep.decision.start]
    assert asleep.outcome.end.id in {ref.id for ref in run.state.dormant}
    sleeper = digest(run.vault.load(asleep.outcome.end.id).member.arrays())
    assert sleeper == stored[asleep.outcome.end.id] != began, "it is stored, and not trained on"


def test_a_search_that_finds_nothing_gives_its_steps_back_when_patience_ends(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    config = changed(
        tiny(tiny_corpus, tmp_path / "storage"),
        {"search.patience": 1, "search.exploration_frac": 0.9, "search.shuffle": True},
    )
    run = lived(config, "patience")
    for attempt in run.attempts:
        generations = attempt.outcome.generations
        dry = [g for g in generations if not g.found]
        allowed = 1 + round(attempt.plan.adaptation.extra_patience)
        assert len(dry) <= allowed
        if generations and not generations[-1].found and len(dry) == allowed:
            assert attempt.outcome.line_steps > 0, "what is left trains the line"


def test_a_cap_on_seconds_ends_the_run_well(tiny_corpus: Path, tmp_path: Path) -> None:
    config = calm(tiny_corpus, tmp_path, **{"budget.steps": 200_000, "budget.max_seconds": 6.0})
    run = lived(config, "capped")
    assert run.is_finished
    assert "cap on seconds" in str(run.state.finished)
    assert run.store.has_file("model/model.safetensors")
    assert run.state.steps_spent < 200_000
