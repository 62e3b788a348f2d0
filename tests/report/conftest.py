"""A plausible run: six phases, a repeat, a rollback, five generations, three possible finals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from symbio_core.config import RunConfig
from symbio_core.records import (
    Adaptation,
    AppliedChange,
    Attempt,
    Battery,
    Candidate,
    CheckpointRef,
    Confirmation,
    Contender,
    Decision,
    Effect,
    Environment,
    EvalPoint,
    FusionCheck,
    Generation,
    Interval,
    MemberRecord,
    Outcome,
    PhasePlan,
    RunState,
    Sample,
    Score,
    TransferCheck,
    Verdict,
)
from symbio_core.report import FinalReport, build

EVOLVED = "gelu(x)·relu(x)+0.2·x"
HOSTILE = "<script>alert('text')</script><img src=https://example.org/x.png onerror=alert(1)>"
ANSWERS = (
    ("What news, my lord?", "The king hath sent for thee, and all the court\nis come to meet him."),
    ("Who goes there?", "A friend, my lord, that loves the noble duke."),
    ("How now, good cousin?", "I am not well; the night was long and cold."),
    ("Speak, gentle Hermia.", "I know not what to say, nor what to do."),
    ("Where is the crown?", "It is in the tower, and the tower is shut."),
    ("What say you to this?", "That he that hath the honour of the field is not so poor a man."),
    ("Will you not dance?", "the the the the the of the the and the the"),
    ("Is it a ghost?", "Bardolfurn shallthe wex, ungrome."),
    ("Tell me thy name.", ""),
    ("Why dost thou weep?", "For that my heart is heavy, and my brother gone."),
)


@dataclass(frozen=True)
class Life:
    """All that a report is made from."""

    config: RunConfig
    attempts: tuple[Attempt, ...]
    state: RunState
    environment: Environment
    shipped: CheckpointRef

    def report(self, confirmation: Confirmation | None = None, **changes: object) -> FinalReport:
        arguments = {
            "run_id": "demo-7f3a",
            "config": self.config,
            "attempts": self.attempts,
            "state": self.state,
            "confirmation": confirmation,
            "environment": self.environment,
            "started": "2026-03-01T09:00:00+00:00",
            "ended": "2026-03-01T09:04:51+00:00",
            "shipped": self.shipped,
        }
        return build(**(arguments | changes))


def interval(value: float, half: float) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def checkpoint(name: str, phase: str, attempt: int, step: int, formula: str, nats: float):
    return CheckpointRef(
        id=name,
        phase=phase,
        attempt=attempt,
        step=step,
        formula=formula,
        val_bpb=round(nats * 0.53, 4),
        serves="ema",
        weights_bpb={
            "live": round(nats * 0.53 + 0.01, 4),
            "ema": round(nats * 0.53, 4),
            "shadow": round(nats * 0.53 + 0.002, 4),
        },
        quality=interval(0.9 - 0.1 * nats, 0.03),
    )


def val_nats(line_step: int) -> float:
    wobble = 0.012 * math.sin(line_step / 37.0)
    return 3.62 + 3.2 * math.exp(-line_step / 210.0) + 0.6 * math.exp(-line_step / 1300.0) + wobble


def member(formula: str, how: str, parents: tuple[str, ...], nodes: int, loss: float, fate: str):
    dropped = fate.startswith("dropped")
    score = Score(
        loss_nats=interval(loss, 0.006),
        train_nats=loss * 1.1,
        steps=20 if dropped else 60,
        seconds=0.4 if dropped else 1.2,
        cost=1.0 + 0.02 * nodes,
        cost_nats=0.001 * nodes,
    )
    candidate = Candidate(formula=formula, mutation=how, parents=parents, nodes=nodes)
    return MemberRecord(
        candidate=candidate,
        score=score,
        rung=0 if dropped else 1,
        rank_value=loss,
        novelty=0.4,
        fate=fate,
    )


GENERATIONS = {
    ("primordial", 1): [
        ("gelu(x)", "relu(x)²", 0.71, 0.42, [
            ("silu(x)", "founder", (), 1, 0.013, "survived"),
            ("relu(x)²", "wrap in square", ("relu(x)",), 2, -0.024, "won"),
            ("0.5·gelu(x)+0.5·x", "inject residual", ("gelu(x)",), 5, 0.009, "dropped at rung 1"),
            ("relu(x)", "founder", (), 1, 0.012, "dropped at rung 1"),
            ("x²", "immigrant", (), 1, 0.41, "dropped at rung 1: the loss exploded"),
        ]),
        ("relu(x)²", "relu(x)²", 0.62, 0.55, [
            ("relu(x)²+0.2·x", "inject residual", ("relu(x)²",), 5, 0.004, "survived"),
            ("gelu(x)²", "swap basis", ("relu(x)²",), 2, -0.003, "survived"),
            ("silu(x)²", "swap basis", ("relu(x)²",), 2, 0.011, "dropped at rung 1"),
        ]),
    ],
    ("cambrian", 1): [
        ("relu(x)²", "gelu(x)·relu(x)", 0.48, 0.61, [
            ("gelu(x)·relu(x)", "crossover", ("gelu(x)", "relu(x)²"), 3, -0.012, "won"),
            ("relu(x)²+x²", "add term", ("relu(x)²",), 4, 0.052, "dropped at rung 1"),
            ("gelu(x)²", "swap basis", ("relu(x)²",), 2, -0.004, "survived"),
            ("silu(x)·relu(x)", "inject gate", ("relu(x)²",), 3, -0.006, "survived"),
        ]),
    ],
    ("cambrian", 2): [
        ("gelu(x)·relu(x)", "gelu(x)·relu(x)", 0.26, 0.93, [
            ("0.9·gelu(x)·relu(x)", "perturb scale", ("gelu(x)·relu(x)",), 4, 0.002, "survived"),
            ("silu(x)·relu(x)", "swap basis", ("gelu(x)·relu(x)",), 3, 0.001, "survived"),
        ]),
    ],
    ("oxidation", 2): [
        ("gelu(x)·relu(x)", EVOLVED, 0.55, 0.78, [
            (EVOLVED, "inject residual", ("gelu(x)·relu(x)",), 7, -0.009, "won"),
            ("relu(x)²", "prune", ("gelu(x)·relu(x)",), 2, 0.007, "survived"),
            ("tanh(x)·relu(x)", "swap basis", ("gelu(x)·relu(x)",), 3, 0.03, "dropped at rung 1"),
        ]),
    ],
}  # fmt: skip


CHECKS = {
    ("cambrian", 2): FusionCheck(
        entropy_nats=(5.1, 4.9, 4.6),
        consensus_nats=interval(0.004, 0.006),
        twin_nats=interval(-0.09, 0.01),
        coupled_nats=interval(-0.05, 0.01),
    ),
    ("oxidation", 2): FusionCheck(
        entropy_nats=(5.0, 5.0, 5.1),
        consensus_nats=interval(-0.012, 0.006),
        twin_nats=interval(-0.031, 0.01),
        coupled_nats=interval(-0.034, 0.01),
    ),
}
TRANSFERS = {
    ("cambrian", 1): (
        TransferCheck(
            formula="silu(x)·relu(x)",
            warm_nats=interval(0.05, 0.01),
            cold_nats=interval(-0.01, 0.01),
            above_frac=0.8,
            steps=40,
        ),
    ),
}


def generations_of(phase: str, attempt: int, first: int) -> tuple[Generation, ...]:
    made = []
    for parent, winner, spread, sync, rows in GENERATIONS.get((phase, attempt), []):
        made.append(
            Generation(
                phase=phase,
                attempt=attempt,
                index=first + len(made),
                parent=parent,
                members=tuple(member(*row) for row in rows),
                winner=winner,
                found=winner != parent,
                front_moved=winner != parent,
                proposals=len(rows) + 2,
                duplicates=2,
                diversity=spread,
                sync=(sync - 0.15, sync),
                angle_gaps=(2.1, 1.2),
                fusion=CHECKS.get((phase, attempt)),
                transfers=TRANSFERS.get((phase, attempt), ()),
                fusions_accepted=3,
                fusions_refused=1,
                hidden_lr_factor=0.994,
                steps=60 + 40 * len(rows),
                steps_kept=60,
                seconds=6.5,
            )
        )
    return tuple(made)


def battery(quality: float) -> Battery:
    samples = [
        Sample(
            prompt=ANSWERS[i % len(ANSWERS)][0],
            text=ANSWERS[i % len(ANSWERS)][1],
            temperature=(0.4, 0.7, 1.0)[i % 3],
            quality=round(max(0.0, quality + 0.1 - 0.05 * (i % len(ANSWERS)) - 0.01 * (i % 3)), 3),
            parts={"fluency": 0.61, "real words": 0.97, "variety": 0.55},
        )
        for i in range(30)
    ]
    samples[4] = samples[4].model_copy(update={"text": HOSTILE, "quality": 0.93})
    samples[8] = samples[8].model_copy(update={"error": "it wrote nothing", "quality": 0.0})
    return Battery(
        samples=tuple(samples),
        quality=interval(quality, 0.03),
        longest_verbatim=7,
        verbatim_frac=0.012,
        seconds=3.0,
    )


TOLD = {
    "progress": ("battery", "paired validation loss (bits a byte)", -0.031, 0.0),
    "regression": ("battery", "loss of quality against the best so far", 0.02, 0.3),
    "train/validation divergence": ("overfitting", "rise of validation loss (nats)", 0.01, 0.05),
    "candidate memorisation": ("overfitting", "growth of a member's gap (nats)", 0.02, 0.0),
    "population collapse": ("overfitting", "functional diversity (0..1)", 0.26, 0.3),
    "fusion trap": ("overfitting", "loss of the coupled control (nats)", -0.002, 0.0),
    "complexity overfitting": ("overfitting", "validation loss above a sibling's", 0.0, 0.0),
    "transfer interference": ("overfitting", "deficit on inherited weights (nats)", 0.01, 0.0),
    "activation space exhaustion": ("plateau", "share of known offspring (0..1)", 0.4, 0.8),
    "punctuated equilibrium": ("plateau", "functional diversity (0..1)", 0.5, 0.3),
    "consensus stagnation": ("plateau", "order parameter r (0..1)", 0.93, 0.9),
    "learning-rate mismatch": ("plateau", "share of skipped steps (0..1)", 0.01, 0.1),
}


def verdicts_of(failed: tuple[str, ...]) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(
            gate=gate,
            name=name,
            metric=metric,
            value=value,
            interval=interval(value, 0.01),
            threshold=threshold,
            passed=name not in failed,
            reason=f"The {metric} is {value:g}; the line is drawn at {threshold:g}.",
        )
        for name, (gate, metric, value, threshold) in TOLD.items()
    )


STORY = [
    ("abiogenesis", 1, "gelu(x)", 0, 200, 0, 0.41, "advance", ()),
    ("primordial", 1, "relu(x)²", 200, 620, 0, 0.49, "advance", ()),
    ("cambrian", 1, "gelu(x)·relu(x)", 620, 900, 0, 0.48, "repeat", ("progress",)),
    (
        "cambrian", 2, "gelu(x)·relu(x)", 620, 1010, 0, 0.53, "dormant",
        ("population collapse", "consensus stagnation"),
    ),
    ("oxidation", 1, "gelu(x)·relu(x)", 1010, 1150, 0, 0.31, "rollback", ("regression",)),
    ("oxidation", 2, EVOLVED, 1010, 1300, 900, 0.55, "advance", ()),
    ("endosymbiosis", 1, EVOLVED, 1300, 2300, 0, 0.60, "advance", ()),
    ("homeostasis", 1, EVOLVED, 2300, 2600, 0, 0.61, "finish", ()),
]  # fmt: skip
RULES = {
    "advance": ("advance", "Validation improved with confidence and quality did not fall."),
    "repeat": ("gate not passed", "No improvement with confidence in quality or validation loss."),
    "dormant": ("train/validation divergence", "Validation rose while train fell."),
    "rollback": ("regression", "Quality is 41% under the best so far, and the interval agrees."),
    "finish": ("advance", "The last phase is done."),
}


def tell() -> tuple[Attempt, ...]:
    attempts, spent, counted, adaptation = [], 0, 0, Adaptation()
    for phase, attempt, formula, begin, end, confirm, quality, kind, failed in STORY:
        found = generations_of(phase, attempt, counted)
        counted += len(found)
        harm = 0.35 if kind == "rollback" else 0.0
        points, lead = [], spent - begin
        for i in range(9):
            line = begin + (end - begin) * i // 8
            if i and i <= len(found):
                lead += found[i - 1].steps - found[i - 1].steps_kept
            nats = val_nats(line) + harm * i / 8
            points.append(
                EvalPoint(
                    step=lead + line,
                    line_step=line,
                    train_nats=nats - 0.02 - 0.00005 * line,
                    val_nats=nats,
                    val_bpb=nats * 0.53,
                    gap_ci=0.01,
                    lr_factor=max(0.03, 1.0 - spent / 4000),
                )
            )
        search = sum(g.steps - g.steps_kept for g in found)
        start = checkpoint(f"{phase}-{attempt}-start", phase, attempt, spent, formula, 5.0)
        last = checkpoint(
            f"{phase}-{attempt}-end", phase, attempt, spent, formula, points[-1].val_nats
        )
        outcome = Outcome(
            phase=phase,
            attempt=attempt,
            start=start,
            end=last,
            best=last,
            points=tuple(points),
            generations=found,
            line_steps=end - begin,
            search_steps=search,
            confirm_steps=confirm,
            clipped=3,
            alarms=("the gradient norm jumped at step 1080",) if kind == "rollback" else (),
            tokens=768 * (end - begin + search + confirm),
            seconds=0.05 * (end - begin + search + confirm),
        )
        spent += outcome.steps
        applied = (
            AppliedChange(
                setting="mutation_scale", before=1.0, after=1.5, cause="population collapse"
            ),
            AppliedChange(
                setting="mutation_scale", before=1.5, after=1.875, cause="consensus stagnation"
            ),
            AppliedChange(setting="extra_nodes", before=0.0, after=3.0, cause=failed[-1]),
            AppliedChange(setting="lr_scale", before=1.0, after=0.5, cause=failed[-1]),
        ) if kind == "dormant" else ()  # fmt: skip
        if phase == "endosymbiosis":
            applied = (
                AppliedChange(setting="lr_scale", before=0.5, after=0.75, cause="relaxation"),
            )
        plan = PhasePlan(
            phase=phase,
            attempt=attempt,
            start=None,
            steps=outcome.steps,
            begin=0.0,
            end=1.0,
            adaptation=adaptation,
        )
        moved = {change.setting: change.after for change in applied}
        adaptation = adaptation.model_copy(update=moved)
        rule, reason = RULES[kind]
        attempts.append(
            Attempt(
                plan=plan,
                outcome=outcome,
                battery=battery(quality),
                verdicts=verdicts_of(failed),
                decision=Decision(
                    kind=kind,
                    rule=rule,
                    reason=reason,
                    start=last.id,
                    adaptation=adaptation,
                    applied=applied,
                ),
            )
        )
    return tuple(attempts)


@pytest.fixture(scope="session")
def life() -> Life:
    """A finished run."""
    attempts = tell()
    shipped = attempts[-1].outcome.best
    state = RunState(
        phase_index=6,
        rollbacks=1,
        steps_spent=sum(a.outcome.steps for a in attempts),
        best=shipped,
        dormant=(attempts[3].outcome.end,),
        flags=("cambrian: attempts exhausted, went on from the best checkpoint",),
        finished="all six phases are done",
    )
    environment = Environment(
        symbio="0.1.0",
        python="3.11.9",
        torch="2.11.0",
        device="cpu",
        cpu_count=2,
        threads=2,
        precision="bfloat16",
        platform="Linux-x86_64",
    )
    return Life(RunConfig(), attempts, state, environment, shipped)


def final(kind: str) -> Confirmation:
    shift = {"evolved wins": -0.018, "fixed wins": 0.021, "no difference": -0.0015}[kind]
    fixed = {"ReLU²": ("relu(x)²", 0.0), "GELU": ("gelu(x)", 0.075), "SiLU": ("silu(x)", 0.158)}
    noise = (-0.004, 0.001, 0.003)
    base = 3.789
    others = [
        Contender(
            name=name,
            formula=text,
            nats=tuple(base + extra + e * (1 + i) for e in noise),
            bpb=(base + extra) * 0.53,
            seconds_per_step=0.0182,
        )
        for i, (name, (text, extra)) in enumerate(fixed.items())
    ]
    own = Contender(
        name="evolved",
        formula=EVOLVED,
        nats=tuple(base + shift + 1.2 * e for e in noise),
        bpb=(base + shift) * 0.53,
        seconds_per_step=0.0196,
    )
    effects = tuple(
        Effect(
            against=name,
            loss_nats=interval(shift - extra, 0.009),
            bpb=interval((shift - extra) * 0.53, 0.009 * 0.53),
            p_value=0.41 if abs(shift - extra) < 0.009 else 0.0042,
        )
        for name, (_, extra) in fixed.items()
    )
    low, high = effects[0].bpb.low, effects[0].bpb.high
    size = f"{abs(shift) * 0.53:.4f} bits a byte ({low:+.4f} to {high:+.4f})"
    how = "trained from scratch for 75 steps, 3 fresh seeds, unseen text"
    sentence = {
        "evolved wins": f"{EVOLVED} beats ReLU² by {size}, p = 0.0042; a step costs 8% more time;",
        "fixed wins": f"ReLU² beats {EVOLVED} by {size}, p = 0.0042;",
        "no difference": f"No difference: keep ReLU². {EVOLVED} came within {size}, p = 0.41;",
    }[kind]
    return Confirmation(
        winner=EVOLVED,
        contenders=(own, *others),
        effects=effects,
        seeds=3,
        steps_each=75,
        steps=900,
        seconds=16.9,
        verdict=kind,
        best_fixed="ReLU²",
        sentence=f"{sentence} {how}.",
    )


@pytest.fixture(scope="session")
def confirmed() -> Callable[[str], Confirmation]:
    """Makes the record of a final with the verdict asked for."""
    return final
