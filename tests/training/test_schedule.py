from itertools import pairwise

import pytest

from symbio_core.config import PHASES, changed
from symbio_core.profiles import demo
from symbio_core.training import lr_factor
from symbio_core.training.schedule import phase_bounds, warmup


def test_the_trapezoid_is_flat_then_falls_to_its_end() -> None:
    config = changed(demo(), {"optimiser.decay_frac": 0.5, "optimiser.final_lr_factor": 0.1})
    assert [lr_factor(config, p) for p in (0.0, 0.3, 0.5)] == [1.0, 1.0, 1.0]
    assert lr_factor(config, 0.75) == pytest.approx(0.55)
    assert lr_factor(config, 1.0) == pytest.approx(0.1)


def test_the_seed_schedule_follows_the_table() -> None:
    config = changed(demo(), {"optimiser.schedule": "seed"})
    bounds = phase_bounds(config)
    expected = {"abiogenesis": 1.0, "primordial": 0.5, "cambrian": 0.3, "oxidation": 0.2}
    for name, factor in expected.items():
        assert lr_factor(config, sum(bounds[name]) / 2) == factor
    begin, end = bounds["endosymbiosis"]
    assert lr_factor(config, begin) == pytest.approx(0.1)
    assert lr_factor(config, end - 1e-9) == pytest.approx(0.03)
    assert lr_factor(config, 1.0) == 0.03


def test_phases_tile_the_run() -> None:
    bounds = phase_bounds(demo())
    edges = [bounds[name] for name in PHASES]
    assert edges[0][0] == 0.0
    assert edges[-1][1] == pytest.approx(1.0)
    assert all(a[1] == b[0] for a, b in pairwise(edges))


def test_warmup_climbs_to_one() -> None:
    config = changed(demo(), {"optimiser.warmup_steps": 3})
    assert [warmup(config, s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
