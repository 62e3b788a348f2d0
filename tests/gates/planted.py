"""Healthy outcomes with realistic noise, and the means to plant a fault in them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from symbio_core.config import GateSettings
from symbio_core.gates import judge_overfitting, judge_plateau
from symbio_core.monitors import t_interval
from symbio_core.records import (
    Battery,
    Candidate,
    CheckpointRef,
    EvalPoint,
    FusionCheck,
    Generation,
    Interval,
    MemberRecord,
    Outcome,
    Sample,
    Score,
    TransferCheck,
    Verdict,
)

GATES = GateSettings()
BATCHES = 24
BATCH_SD = 0.15
"""How much batches differ in difficulty (nats a token); it cancels in pairs."""
PAIR_SD = 0.01
"""Noise of a paired difference a batch (nats a token)."""
TRAINING_SD = 0.004
"""What repeating a training adds to a measured difference (nats a token)."""
FORMULAS = ("gelu(x)", "silu(x)", "relu(x)^2", "tanh(x)", "x*sigmoid(2*x)", "softplus(x)")

Numbers = npt.NDArray[np.float64]


def ref(name: str, nats: Numbers | tuple[float, ...]) -> CheckpointRef:
    return CheckpointRef(
        id=name, phase="cambrian", attempt=1, step=100, formula="gelu(x)", val_bpb=2.0,
        val_nats=tuple(float(x) for x in nats),
    )  # fmt: skip


def batches(rng: np.random.Generator, *levels: float) -> list[Numbers]:
    """Losses of one model at several times on the same batches."""
    difficulty = rng.normal(0.0, BATCH_SD, BATCHES)
    return [level + difficulty + rng.normal(0.0, PAIR_SD, BATCHES) for level in levels]


def points(val: Numbers, train: Numbers) -> tuple[EvalPoint, ...]:
    return tuple(
        EvalPoint(step=100 * i, line_step=100 * i, train_nats=t, val_nats=v, val_bpb=v / 2)
        for i, (v, t) in enumerate(zip(val.tolist(), train.tolist(), strict=True))
    )


def law(steps: Numbers, rates: Numbers, *, pace: float = 0.3) -> Numbers:
    """Losses of a line that falls by ``pace`` a unit of the log of steps × learning rate."""
    gained = np.diff(steps) * (rates[1:] + rates[:-1]) / 2.0
    done = steps[0] * rates[0] + np.concatenate([[0.0], gained.cumsum()])
    return np.asarray(6.0 - pace * np.log(done))


def at_steps(steps: Numbers, val: Numbers, rates: Numbers) -> tuple[EvalPoint, ...]:
    """Evaluations of a line at these steps of its history and learning rates."""
    return tuple(
        EvalPoint(
            step=int(s), line_step=int(s), train_nats=v - 0.1, val_nats=v, val_bpb=v / 2,
            lr_factor=r,
        )
        for s, v, r in zip(steps.tolist(), val.tolist(), rates.tolist(), strict=True)
    )  # fmt: skip


def course(
    rng: np.random.Generator, val: Numbers, train: Numbers, *, sd: float = 0.003, **more: Any
) -> Outcome:
    """An outcome whose line went through these losses, plus noise."""
    seen = val + rng.normal(0.0, sd, val.size)
    start, end, best = batches(rng, float(val[0]), float(val[-1]), float(val.min()))
    facts: dict[str, Any] = {
        "phase": "cambrian", "attempt": 1, "line_steps": 100 * val.size, "search_steps": 900,
        "start": ref("start", start), "end": ref("end", end),
        "best": ref("best", end if seen.argmin() == val.size - 1 else best),
        "points": points(seen, train + rng.normal(0.0, sd, val.size)),
        "clipped": 30 * val.size, "skipped": val.size,
    }  # fmt: skip
    return Outcome(**(facts | more))


def measured(
    rng: np.random.Generator, truth: float, *, sd: float = PAIR_SD, training_sd: float = TRAINING_SD
) -> Interval:
    """A difference of two trained models as twelve paired batches tell it."""
    repeat = truth + rng.normal(0.0, training_sd)
    return t_interval(repeat + rng.normal(0.0, sd, 12))


def member(
    formula: str, *, nodes: int = 3, loss: float = 0.0, half: float = 0.01, train: float = 0.0,
    rung: int = 1, fate: str = "survived", **more: Any,
) -> MemberRecord:  # fmt: skip
    interval = Interval(value=loss, low=loss - half, high=loss + half)
    return MemberRecord(
        candidate=Candidate(formula=formula, nodes=nodes), rung=rung, rank_value=loss, fate=fate,
        score=Score(loss_nats=interval, train_nats=train, steps=60), **({"novelty": 0.3} | more),
    )  # fmt: skip


def fusion(
    rng: np.random.Generator, *, twin: float = -0.05, coupled: float = -0.05,
    consensus: float = 0.01, entropy: tuple[float, ...] = (3.4, 3.3, 3.2),
) -> FusionCheck:  # fmt: skip
    """A pull that costs ``coupled`` less ``twin``; the rest is as a trap would have it."""
    return FusionCheck(
        entropy_nats=entropy, consensus_nats=measured(rng, consensus),
        twin_nats=measured(rng, twin), coupled_nats=measured(rng, coupled),
    )  # fmt: skip


def transfer(
    rng: np.random.Generator, *, warm: float = 0.05, cold: float = 0.05, above: float = 0.8
) -> TransferCheck:
    """A child whose function costs ``warm`` on inherited weights and ``cold`` on fresh ones."""
    return TransferCheck(
        formula="-gelu(x)", warm_nats=measured(rng, warm), cold_nats=measured(rng, cold),
        above_frac=above, steps=40,
    )  # fmt: skip


def generation(rng: np.random.Generator, **more: Any) -> Generation:
    """A generation of candidates as good as each other, large and small, some find made."""
    half = 0.01
    members = tuple(
        member(
            formula, nodes=int(rng.integers(1, 13)), half=half, rung=1 + i % 2,
            loss=float(rng.normal(0.0, half / 2)), train=float(rng.normal(0.0, half / 2)),
            gaps=tuple(measured(rng, 0.01 * k) for k in range(2 + i % 2)),
            novelty=float(rng.uniform(0.06, 0.4)), above_frac=float(rng.uniform(0.0, 1.0)),
        )
        for i, formula in enumerate(FORMULAS)
    )  # fmt: skip
    facts: dict[str, Any] = {
        "phase": "cambrian", "attempt": 1, "index": 0, "parent": "gelu(x)", "members": members,
        "winner": "silu(x)", "found": True, "front_moved": True, "proposals": 8, "duplicates": 2,
        "diversity": float(rng.uniform(0.35, 0.7)), "steps": 900, "steps_kept": 60,
        "sync": tuple(rng.uniform(0.2, 0.85, 3)),
        "fusion": fusion(rng), "transfers": (transfer(rng), transfer(rng, warm=0.0, cold=0.02)),
    }  # fmt: skip
    facts |= more
    return Generation(**({"diversity_ci": 0.2 * facts["diversity"]} | facts))


def one_function(rng: np.random.Generator, **more: Any) -> Generation:
    """A generation whose members are one function in different clothes."""
    found = generation(rng, **({"diversity": 0.02, "found": False} | more))
    members = tuple(m.model_copy(update={"novelty": 0.01}) for m in found.members)
    return found.model_copy(update={"members": members})


def healthy(rng: np.random.Generator, **more: Any) -> Outcome:
    """Validation and train fall side by side over eight evaluations, with two generations."""
    fall = 0.4 * np.exp(-np.arange(8) / 4)
    facts = {"generations": (generation(rng), generation(rng, index=1))}
    return course(rng, 3.0 + fall, 2.9 + fall, **(facts | more))


def battery(qualities: Numbers) -> Battery:
    """Answers of the given quality, shape (prompts, temperatures)."""
    samples = tuple(
        Sample(prompt=f"prompt {i}", text="a b c", temperature=0.4 + 0.3 * j, quality=float(q))
        for i, row in enumerate(qualities)
        for j, q in enumerate(row)
    )
    mean, half = float(qualities.mean()), float(2 * qualities.std() / np.sqrt(qualities.size))
    return Battery(
        samples=samples, longest_verbatim=3, verbatim_frac=0.0,
        quality=Interval(value=mean, low=mean - half, high=mean + half),
    )  # fmt: skip


def answers(rng: np.random.Generator, level: float) -> Numbers:
    """Qualities of 20 prompts at 3 temperatures around a level."""
    hard = rng.normal(0.0, 0.1, (20, 1))
    return np.clip(level + hard + rng.normal(0.0, 0.08, (20, 3)), 0.0, 1.0)


def walk(rng: np.random.Generator, n: int, sd: float) -> Numbers:
    """What evaluations of one line have in common by wandering together, shape (n,)."""
    return np.concatenate([[0.0], rng.normal(0.0, sd, n - 1).cumsum()])


def failed(
    outcome: Outcome,
    history: tuple[Generation, ...] = (),
    earlier: tuple[EvalPoint, ...] = (),
) -> set[str]:
    """Names of all verdicts on overfitting and plateaus that failed."""
    return {v.name for v in verdicts(outcome, history, earlier).values() if not v.passed}


def verdicts(
    outcome: Outcome,
    history: tuple[Generation, ...] = (),
    earlier: tuple[EvalPoint, ...] = (),
) -> dict[str, Verdict]:
    """All verdicts on overfitting and plateaus by name."""
    both = (
        *judge_overfitting(outcome, history, GATES),
        *judge_plateau(outcome, history, GATES, earlier),
    )
    return {verdict.name: verdict for verdict in both}
