"""The sentence and the verdict of the final, from its figures alone."""

from __future__ import annotations

import pytest

from symbio_core.records import Contender, Effect, Interval
from symbio_core.runner.confirm import judged


def told(
    difference: float, half: float, p_value: float, *, slower: float = 1.1, at_cost: float = -0.011
) -> tuple[str, str]:
    span = Interval(value=difference, low=difference - half, high=difference + half)
    own = Contender(
        name="evolved",
        formula="gelu(x)²",
        nats=(3.0, 3.1, 2.9),
        bpb=1.5 + difference,
        seconds_per_step=0.11,
    )
    fixed = Contender(
        name="ReLU²",
        formula="relu(x)²",
        nats=(3.0, 3.1, 2.9),
        bpb=1.5,
        seconds_per_step=0.1,
        cost=1.0 / slower,
    )
    effect = Effect(against="ReLU²", loss_nats=span, bpb=span, p_value=p_value)
    later = Interval(value=at_cost, low=at_cost - half, high=at_cost + half)
    timed = Effect(against="ReLU²", loss_nats=later, bpb=later, p_value=p_value)
    found = judged(
        (own, fixed),
        (effect,),
        (timed,) if slower != 1.0 else (),
        steps_each=80,
        steps=480,
        seconds=9.0,
        scale=1.0,
    )
    return found.verdict, found.sentence


@pytest.mark.parametrize(
    ("difference", "half", "p_value", "verdict", "words"),
    [
        (-0.02, 0.005, 0.003, "evolved wins", "gelu(x)² beats ReLU² by 0.0200 bits a byte"),
        (+0.02, 0.005, 0.003, "fixed wins", "ReLU² beats gelu(x)² by 0.0200 bits a byte"),
        (-0.02, 0.005, 0.08, "no difference", "No difference that is sure: keep ReLU²."),
        (-0.02, 0.030, 0.30, "no difference", "-0.0500 to +0.0100"),
    ],
)
def test_the_verdict_needs_interval_and_corrected_p_value(
    difference: float, half: float, p_value: float, verdict: str, words: str
) -> None:
    found, sentence = told(difference, half, p_value)
    assert found == verdict
    assert words in sentence
    assert "after 80 steps from fresh weights, 3 fresh seeds" in sentence


def test_a_win_names_its_price() -> None:
    sentence = told(-0.02, 0.005, 0.003)[1]
    assert "a step takes 10% more time, and at equal time it is -0.0110" in sentence
    assert "a step takes as long" in told(-0.02, 0.005, 0.003, slower=1.0)[1]


@pytest.mark.parametrize("at_cost", [-0.003, 0.0, 0.012])
def test_an_evolved_function_that_is_ahead_at_equal_steps_alone_has_not_won(at_cost: float) -> None:
    verdict, sentence = told(-0.02, 0.005, 0.003, at_cost=at_cost)
    assert verdict == "no difference"
    assert "No difference that is sure: keep ReLU²" in sentence
    assert f"at equal time it is {at_cost:+.4f}" in sentence


def test_a_fixed_function_that_wins_at_equal_steps_has_won() -> None:
    assert told(+0.02, 0.005, 0.003, at_cost=-0.02)[0] == "fixed wins"
