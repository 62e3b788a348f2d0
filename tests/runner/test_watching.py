"""Monitors on real training: a planted shock is told, a healthy phase is left in peace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from symbio_core import runner
from symbio_core.config import RunConfig, changed
from symbio_core.monitors import first_shifts, threshold_for
from symbio_core.records import EvalPoint
from symbio_core.runner.watching import (
    BLOCK,
    CLIP_BLOCK,
    RUN_LENGTH,
    Series,
    Watch,
    _blocks,
    _clip_angles,
)
from symbio_core.streams import generator
from symbio_core.training import Stretch

STEPS = 600


def _steady(rate: float) -> Callable[[int], float]:
    return lambda _: rate


def trained(config: RunConfig, shock: float, seed: int) -> Watch:
    """Train for real; from step 400 on the learning rate is ``shock`` times as high."""
    name = f"watch-{shock:g}-{seed}"
    bench = runner.open_run(changed(config, {"seed": seed}), name).bench
    member = bench.fresh_member("gelu(x)", "line")
    batches = bench.train_batches("line")
    watch = Watch()
    for begin in range(0, STEPS, 50):
        rate = shock if begin >= 400 else 1.0
        watch = watch.after(member.train(50, batches, _steady(rate)), begin)
    return watch.model_copy(update={"paces": ()})


def test_a_shock_of_the_learning_rate_is_told_with_its_step(tiny_config: RunConfig) -> None:
    loose = changed(tiny_config, {"optimiser.spike_factor": 1e6})
    alarms = trained(loose, 30.0, 1).alarms()
    assert alarms
    at = [int(text.split("at step ")[1].split()[0]) for text in alarms]
    assert any(380 <= step <= 450 for step in at)
    assert all("once in 5000 steps" in text for text in alarms)


def test_healthy_phases_seldom_raise_an_alarm(tiny_config: RunConfig) -> None:
    told = [trained(tiny_config, 1.0, seed).alarms() for seed in range(3)]
    # Three times seventy points after the baseline, two series, one false alarm in a thousand.
    assert sum(map(len, told)) <= 2


def test_a_machine_that_slows_down_is_told_and_one_that_speeds_up_is_not() -> None:
    rng = generator(1, "pace")
    paces = np.exp(rng.normal(np.log(0.02), 0.05, 800))
    slower, faster = paces.copy(), paces.copy()
    slower[500:] *= 2.0
    faster[500:] /= 2.0
    (told,) = Watch(stretches=((0, 0),), paces=tuple(slower)).alarms()
    assert "throughput fell at step 49" in told or "at step 501" in told
    assert Watch(stretches=((0, 0),), paces=tuple(faster)).alarms() == ()


POINTS = 1000
FALLING = (2 + 9 * (np.arange(POINTS * BLOCK) + 100.0) ** -0.5) / 0.1


def normal_blocks(rng: np.random.Generator) -> Series:
    return _blocks(tuple(rng.standard_normal(POINTS * BLOCK)))


def falling_blocks(rng: np.random.Generator) -> Series:
    return _blocks(tuple(FALLING + rng.standard_normal(POINTS * BLOCK)))


def clipped_blocks(share: float) -> Callable[[np.random.Generator], Series]:
    def drawn(rng: np.random.Generator) -> Series:
        return _clip_angles(tuple(rng.random(POINTS * CLIP_BLOCK) < share))

    return drawn


SERIES = {
    "noise": normal_blocks,
    "a falling loss": falling_blocks,
    "one step in thirty clipped": clipped_blocks(0.03),
    "one in ten": clipped_blocks(0.1),
    "every other": clipped_blocks(0.5),
}


@pytest.mark.parametrize("name", SERIES)
def test_blocks_raise_a_false_alarm_as_seldom_as_is_stated_to_within_a_fifth(name: str) -> None:
    rng = generator(3, "in control", name)
    table = np.array([SERIES[name](rng) for _ in range(500)])
    first = first_shifts(table, threshold_for(RUN_LENGTH))
    watched = sum((alarm.index if alarm else POINTS) - 50 for alarm in first)
    false = sum(alarm is not None and alarm.side == "upper" for alarm in first)
    assert 0.8 * RUN_LENGTH <= watched / false <= 1.2 * RUN_LENGTH


def test_clipping_that_sets_in_is_told_and_a_steady_share_is_not() -> None:
    rng = generator(4, "clips")
    steady = rng.random(1500) < 0.05
    more = steady | (np.arange(1500) >= 1000) & (rng.random(1500) < 0.4)
    told = Watch(stretches=((0, 0),), clips=tuple(bool(x) for x in more)).alarms()
    assert len(told) == 1
    assert told[0].startswith("clip share rose at step ")
    assert 900 <= int(told[0].split("at step ")[1].split()[0]) <= 1050
    assert "once in 10000 steps" in told[0]
    assert Watch(stretches=((0, 0),), clips=tuple(bool(x) for x in steady)).alarms() == ()
    assert Watch(stretches=((0, 0),), clips=(False,) * 1500).alarms() == ()


def test_what_training_clips_is_watched(tiny_config: RunConfig) -> None:
    bench = runner.open_run(changed(tiny_config, {"optimiser.clip_norm": 1e-6}), "clips").bench
    stretch = bench.fresh_member("gelu(x)", "line").train(
        20, bench.train_batches("line"), _steady(1.0)
    )
    watch = Watch().after(stretch, 0)
    assert sum(watch.clips) == stretch.clipped > 0
    assert len(watch.clips) == 20


def evaluated(nats: Series) -> tuple[EvalPoint, ...]:
    return tuple(
        EvalPoint(step=7 * i, line_step=5 * i, train_nats=0.0, val_nats=x, val_bpb=x)
        for i, x in enumerate(nats)
    )


def test_a_validation_loss_that_turns_upward_is_told_with_its_step() -> None:
    rng = generator(5, "validation")
    at = np.arange(150)
    healthy = 3 + 4 * (at + 20.0) ** -0.3 + 0.02 * rng.standard_normal(150)
    turned = healthy + np.where(at > 100, 0.01 * (at - 100), 0.0)
    (told,) = Watch().alarms(evaluated(turned))
    assert told.startswith("validation loss rose at step ")
    assert 480 <= int(told.split("at step ")[1].split()[0]) <= 600
    assert "once in 1000 evaluations" in told
    assert Watch().alarms(evaluated(healthy)) == ()


def test_a_watch_that_was_stored_goes_on_as_if_it_had_not_been() -> None:
    rng = generator(2, "stored")
    first, second = (
        Stretch(
            losses=list(rng.normal(3, 0.1, 80)),
            norms=list(rng.uniform(0.5, 1, 80)),
            clips=[bool(x) for x in rng.random(80) < 0.2],
        )
        for _ in range(2)
    )
    whole = Watch().after(first, 7).after(second, 99)
    stored = Watch.model_validate_json(Watch().after(first, 7).model_dump_json())
    assert stored.after(second, 99) == whole
    assert stored.after(second, 99).alarms() == whole.alarms()
