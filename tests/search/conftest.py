"""Small ways to write down candidates, scores and generations."""

from types import SimpleNamespace

import pytest

from symbio_core.activations import n_nodes, parse
from symbio_core.records import Candidate, Generation, Interval, MemberRecord, Score


def candidate(formula, **more):
    return Candidate(formula=formula, nodes=n_nodes(parse(formula)), **more)


def score(value, half=0.002, steps=40):
    interval = Interval(value=value, low=value - half, high=value + half)
    return Score(loss_nats=interval, train_nats=value, steps=steps)


def member(formula, value, *, half=0.002, rung=1, fate="survived", **more):
    return MemberRecord(
        candidate=candidate(formula, **more),
        score=None if value is None else score(value, half),
        rung=rung,
        rank_value=0.0,
        fate=fate,
    )


def generation(parent, members, *, winner=None, index=0, phase="primordial", attempt=1, **more):
    facts = {
        "front_moved": False, "proposals": len(members), "duplicates": 0, "diversity": 0.5,
        "sync": (0.5,), "steps": 100, "steps_kept": 20, **more,
    }  # fmt: skip
    return Generation(
        phase=phase,
        attempt=attempt,
        index=index,
        parent=parent,
        members=tuple(members),
        winner=winner or parent,
        found=winner is not None,
        **facts,
    )


@pytest.fixture(scope="session")
def scene():
    """The writers above, by name."""
    return SimpleNamespace(candidate=candidate, score=score, member=member, generation=generation)
