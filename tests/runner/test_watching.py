"""Monitors on real training: a planted shock is told, a healthy phase is left in peace."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from symbio_core import runner
from symbio_core.config import RunConfig, changed
from symbio_core.runner.watching import Watch
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


def test_a_watch_that_was_stored_goes_on_as_if_it_had_not_been() -> None:
    rng = generator(2, "stored")
    first, second = (
        Stretch(losses=list(rng.normal(3, 0.1, 80)), norms=list(rng.uniform(0.5, 1, 80)))
        for _ in range(2)
    )
    whole = Watch().after(first, 7).after(second, 99)
    stored = Watch.model_validate_json(Watch().after(first, 7).model_dump_json())
    assert stored.after(second, 99) == whole
    assert stored.after(second, 99).alarms() == whole.alarms()
