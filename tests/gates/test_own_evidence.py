"""No verdict masks another: each depends on its own evidence, and all can be reported at once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.records import Generation, Interval, Outcome
from symbio_core.streams import generator
from tests.gates.planted import (
    course,
    failed,
    fusion,
    generation,
    healthy,
    measured,
    one_function,
    transfer,
    verdicts,
)

LINE = {"points", "start", "end", "best"}
EVIDENCE: dict[str, set[str]] = {
    "train/validation divergence": {"points", "end", "best"},
    "candidate memorisation": {"members.gaps", "members.candidate"},
    "population collapse": {"found", "diversity", "diversity_ci", "members.novelty"},
    "fusion trap": {"fusion"},
    "complexity overfitting": {"members.score", "members.rung", "members.candidate"},
    "transfer interference": {"transfers"},
    "activation space exhaustion": {"proposals", "duplicates", "front_moved"},
    "punctuated equilibrium": {"found", "diversity", "diversity_ci", *LINE},
    "consensus stagnation": {"found", "sync", "members.rung", *LINE},
    "learning-rate mismatch": {
        "points",
        "skipped",
        "clipped",
        "line_steps",
        "lr_probe",
        "lr_probe_ci",
    },
}
"""Everything a verdict may look at, as fields of an outcome, its generations and their members."""

FAULTS = st.sets(st.sampled_from(sorted(EVIDENCE)))


def faulty(seed: int, faults: set[str]) -> Outcome:
    """An outcome with these faults planted, always of two generations of six members."""
    rng, t = generator(seed, "faulty"), np.arange(8)
    generations = tuple(_generation(rng, index, faults) for index in (0, 1))
    more: dict[str, Any] = {"generations": generations, "line_steps": int(rng.integers(500, 900))}
    if "learning-rate mismatch" in faults:
        more["skipped"] = 400
    else:
        more["lr_probe"], more["lr_probe_ci"] = (
            tuple(3.0 + rng.normal(0.0, 0.002, 3)),
            (0.003, 0.003),
        )
    if "train/validation divergence" in faults:
        return course(rng, 3.0 + 0.03 * t, 3.0 - 0.05 * t, **more)
    if "consensus stagnation" in faults:
        outcome = course(rng, 3.0 + 0.004 * t, 2.9 + 0.004 * t, **more)
        return outcome.model_copy(update={"end": outcome.start})
    return healthy(rng, **more)


def _generation(rng: np.random.Generator, index: int, faults: set[str]) -> Generation:
    stuck = {"population collapse", "punctuated equilibrium", "consensus stagnation"} & faults
    more: dict[str, Any] = {"index": index, "found": not stuck}
    if "consensus stagnation" in faults:
        more["sync"] = (0.5, 0.97, 0.98)
    if "activation space exhaustion" in faults:
        more |= {"proposals": 40, "duplicates": 38, "front_moved": False}
    if "fusion trap" in faults:
        more["fusion"] = fusion(rng, twin=-0.1, coupled=-0.01)
    if "transfer interference" in faults:
        more["transfers"] = (transfer(rng, warm=0.4, cold=0.1),)
    if "population collapse" in faults:
        # Rising from a low level is a jump in preparation, low all the same.
        found = one_function(rng, **(more | {"diversity": (0.1, 0.25)[index]}))
    else:
        found = generation(rng, **(more | {"diversity": 0.5}))
    members = list(found.members)
    if "candidate memorisation" in faults:
        members[5] = members[5].model_copy(update={"gaps": (members[5].gaps[0], _gap(rng))})
    if "complexity overfitting" in faults:
        members[0], members[2] = _bloated(members[0], 11, 0.2, -0.1), _bloated(members[2], 2, 0, 0)
    return found.model_copy(update={"members": tuple(members)})


def _gap(rng: np.random.Generator) -> Interval:
    return measured(rng, 0.3)


def _bloated(one: Any, nodes: int, loss: float, train: float) -> Any:
    level = Interval(value=loss, low=loss - 0.01, high=loss + 0.01)
    score = one.score.model_copy(update={"loss_nats": level, "train_nats": train})
    candidate = one.candidate.model_copy(update={"nodes": nodes})
    return one.model_copy(update={"score": score, "candidate": candidate})


def with_evidence(base: Outcome, other: Outcome, fields: set[str]) -> Outcome:
    """Return ``base`` with these fields, and no others, as ``other`` has them."""
    of_members = {name.removeprefix("members.") for name in fields if name.startswith("members.")}
    mixed = [
        a.model_copy(
            update={f: getattr(b, f) for f in fields & set(Generation.model_fields)}
            | {
                "members": tuple(
                    mine.model_copy(update={f: getattr(theirs, f) for f in of_members})
                    for mine, theirs in zip(a.members, b.members, strict=True)
                )
            }
        )
        for a, b in zip(base.generations, other.generations, strict=True)
    ]
    line = {f: getattr(other, f) for f in fields & set(Outcome.model_fields)}
    return base.model_copy(update=line | {"generations": tuple(mixed)})


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(EVIDENCE)),
    seeds=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
    own=FAULTS,
    others=FAULTS,
)
def test_each_verdict_depends_on_its_own_evidence_alone(
    name: str, seeds: tuple[int, int], own: set[str], others: set[str]
) -> None:
    source, surroundings = faulty(seeds[0], own), faulty(seeds[1], others)
    mixed = with_evidence(surroundings, source, EVIDENCE[name])
    assert verdicts(mixed)[name] == verdicts(source)[name]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 200), faults=FAULTS)
def test_every_planted_fault_is_reported_whatever_else_is_planted(
    seed: int, faults: set[str]
) -> None:
    assert faults - {"punctuated equilibrium"} <= failed(faulty(seed, faults))


@pytest.mark.parametrize("seed", range(5))
def test_all_ten_can_be_reported_at_once(seed: int) -> None:
    assert failed(faulty(seed, set(EVIDENCE))) == set(EVIDENCE)


def test_the_table_of_evidence_is_not_too_wide() -> None:
    """Take one field out of the table at a time: somewhere the verdict then differs."""
    pairs = [(faulty(s, set(EVIDENCE)), faulty(s + 50, set())) for s in range(3)]
    for name in ("population collapse", "fusion trap", "transfer interference"):
        for field in EVIDENCE[name]:
            less = EVIDENCE[name] - {field}
            assert any(
                verdicts(with_evidence(b, a, less))[name] != verdicts(a)[name] for a, b in pairs
            ), (name, field)
