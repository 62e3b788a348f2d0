"""How sure a lead is."""

from __future__ import annotations

from symbio_core.search import early_noise


def test_a_lead_after_few_steps_is_less_sure_than_one_near_the_end() -> None:
    noises = [early_noise(seen, 4500) for seen in (30, 120, 1000, 4500)]
    assert noises == sorted(noises, reverse=True)
    assert noises[-1] == early_noise(9000, 4500) > 0.0, "the training's own noise is left"
