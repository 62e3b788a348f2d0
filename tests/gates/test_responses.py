"""Evidence that a phase has answered while it ran is no new evidence; what comes after it is."""

from __future__ import annotations

import numpy as np
import pytest

from symbio_core.records import Generation, Outcome, Response
from symbio_core.streams import generator
from tests.gates.planted import generation, healthy, transfer, verdicts

INTERFERENCE, MISMATCH = "transfer interference", "learning-rate mismatch"
EXHAUSTION = "activation space exhaustion"


def hindered(rng: np.random.Generator, index: int, *, warm: float) -> Generation:
    return generation(rng, index=index, transfers=(transfer(rng, warm=warm, cold=0.1),))


def answered(outcome: Outcome, name: str, **more: int | bool) -> Outcome:
    """The outcome as it is where its phase has answered this verdict."""
    facts = {"generations": 0, "line_steps": 0, "skipped": 0, "clipped": 0, "probed": False} | more
    response = Response(verdict=verdicts(outcome)[name], applied=(), **facts)
    return outcome.model_copy(update={"responses": (response,)})


@pytest.mark.parametrize(("later", "is_answered"), [(0.0, True), (0.5, False)])
def test_only_a_later_generation_speaks_again(later: float, is_answered: bool) -> None:
    rng = generator(0, "twice")
    generations = (hindered(rng, 0, warm=0.5), hindered(rng, 1, warm=later))
    outcome = healthy(rng, generations=generations)
    verdict = verdicts(answered(outcome, INTERFERENCE, generations=1))[INTERFERENCE]
    assert (verdict.passed, verdict.answered) == (False, is_answered)
    assert not verdicts(outcome)[INTERFERENCE].answered
    both = answered(outcome, INTERFERENCE, generations=2)
    assert verdicts(both)[INTERFERENCE].answered


def test_an_answer_to_one_verdict_is_none_to_another() -> None:
    rng = generator(0, "other")
    outcome = healthy(rng, generations=(hindered(rng, 0, warm=0.5),))
    other = answered(outcome, EXHAUSTION, generations=1)
    assert not verdicts(other)[INTERFERENCE].answered


def test_spikes_after_the_answer_count_anew() -> None:
    outcome = healthy(generator(0, "spikes"), skipped=300)
    spiky = {"line_steps": 400, "clipped": 0}
    calm = verdicts(answered(outcome, MISMATCH, skipped=290, **spiky))[MISMATCH]
    assert (calm.passed, calm.answered) == (False, True)
    again = verdicts(answered(outcome, MISMATCH, skipped=150, **spiky))[MISMATCH]
    assert (again.passed, again.answered) == (False, False)
    assert again.value == 150 / 400


@pytest.mark.parametrize("probed", [True, False])
def test_a_probe_counts_once(probed: bool) -> None:
    probe = {"lr_probe": (3.1, 3.0, 2.9), "lr_probe_ci": (0.01, 0.01)}
    outcome = healthy(generator(0, "probe"), **probe)
    verdict = verdicts(answered(outcome, MISMATCH, probed=probed))[MISMATCH]
    assert not verdict.passed
    assert verdict.answered is probed
