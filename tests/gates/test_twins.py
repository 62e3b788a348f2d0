"""The fusion trap and transfer interference are seen against their twins, and nowhere else."""

import numpy as np
import pytest

from symbio_core.gates.twins import fusion_trap, transfer_interference
from symbio_core.lifecycle import adapt
from symbio_core.records import Adaptation
from symbio_core.streams import generator
from tests.gates.planted import course, failed, fusion, generation, healthy, transfer, verdicts

TRAP, INTERFERENCE = "fusion trap", "transfer interference"
SIMULATIONS = 400
AT_MOST = 0.05 * SIMULATIONS


@pytest.mark.parametrize("seed", range(10))
def test_a_consensus_that_narrows_and_holds_back_is_a_trap_and_nothing_else(seed: int) -> None:
    rng = generator(seed, "trap")
    trapped = generation(rng, index=1, fusion=fusion(rng, twin=-0.08, coupled=-0.01))
    outcome = healthy(rng, generations=(generation(rng), trapped))
    assert failed(outcome) == {TRAP}
    assert "less than its twin" in verdicts(outcome)[TRAP].reason


@pytest.mark.parametrize(
    "change",
    [
        {"entropy": (3.2, 3.3, 3.4)},
        {"entropy": (3.2, 3.1, 3.2)},
        {"entropy": (3.2,)},
        {"consensus": -0.05},
        {"twin": 0.0, "coupled": 0.07},
        {"coupled": -0.08},
        {"coupled": -0.15},
    ],
)
def test_a_pull_that_lacks_one_sign_of_a_trap_is_none(change: dict[str, float]) -> None:
    rng = generator(0, "no trap")
    facts = {"twin": -0.08, "coupled": -0.01} | change
    outcome = healthy(rng, generations=(generation(rng, fusion=fusion(rng, **facts)),))  # type: ignore[arg-type]
    assert TRAP not in failed(outcome)


@pytest.mark.parametrize("generations", [1, 4])
def test_a_harmless_pull_is_seldom_called_a_trap(generations: int) -> None:
    rng = generator(0, "base")
    base, one = healthy(rng, generations=()), generation(rng)
    alarms = 0
    for seed in range(SIMULATIONS):
        rng = generator(seed, "harmless")
        found = tuple(one.model_copy(update={"fusion": fusion(rng)}) for _ in range(generations))
        alarms += not fusion_trap(base.model_copy(update={"generations": found})).passed
    assert alarms <= AT_MOST


@pytest.mark.parametrize("seed", range(10))
def test_a_child_held_back_by_its_inheritance_is_interference_and_nothing_else(
    seed: int,
) -> None:
    rng = generator(seed, "held back")
    checks = (transfer(rng), transfer(rng, warm=0.3, cold=0.1))
    outcome = healthy(rng, generations=(generation(rng, transfers=checks), generation(rng)))
    assert failed(outcome) == {INTERFERENCE}
    verdict = verdicts(outcome)[INTERFERENCE]
    assert "-gelu(x)" in verdict.reason
    assert verdict.interval is not None
    assert verdict.interval.above_zero


@pytest.mark.parametrize(
    "change", [{"cold": 0.3}, {"above": 0.5}, {"above": 0.1}, {"warm": -0.1}, {"warm": 0.11}]
)
def test_a_bad_or_quick_or_doubtful_child_is_none(change: dict[str, float]) -> None:
    rng = generator(0, "none")
    check = transfer(rng, **({"warm": 0.3, "cold": 0.1} | change))
    outcome = healthy(rng, generations=(generation(rng, transfers=(check,)),))
    assert INTERFERENCE not in failed(outcome)


@pytest.mark.parametrize("checks", [1, 6])
def test_children_as_bad_warm_as_cold_are_seldom_called_interference(checks: int) -> None:
    rng = generator(0, "base")
    base, one = healthy(rng, generations=()), generation(rng)
    alarms = 0
    for seed in range(SIMULATIONS):
        rng = generator(seed, "as bad")
        found = one.model_copy(update={"transfers": tuple(transfer(rng) for _ in range(checks))})
        alarms += not transfer_interference(
            base.model_copy(update={"generations": (found,)})
        ).passed
    assert alarms <= AT_MOST


def test_phases_without_checks_say_so() -> None:
    flat = np.full(8, 3.0)
    rng = generator(0, "none")
    unchecked = generation(rng, fusion=None, transfers=())
    searched = verdicts(course(rng, flat, flat, generations=(unchecked,)))
    assert searched[TRAP].reason == "no consensus was checked"
    assert searched[INTERFERENCE].reason == "no child was tested"
    idle = verdicts(course(rng, flat, flat))
    for name in (TRAP, INTERFERENCE):
        assert idle[name].reason == "no search in this phase"
        assert idle[name].passed
        assert searched[name].passed


def test_their_responses_change_what_they_promise() -> None:
    rng = generator(0, "responses")
    trapped = fusion(rng, twin=-0.08, coupled=-0.01)
    checks = (transfer(rng, warm=0.3, cold=0.1),)
    outcome = healthy(rng, generations=(generation(rng, fusion=trapped, transfers=checks),))
    after, _ = adapt(Adaptation(), list(verdicts(outcome).values()))
    assert after.reset_consensus == 1.0
    assert after.fusion_scale == 0.5
    assert after.inherit_less == pytest.approx(0.3)
    assert after.immigrants == pytest.approx(Adaptation().immigrants + 0.1)
