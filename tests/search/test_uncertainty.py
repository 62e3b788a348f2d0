"""How sure a lead is."""

from __future__ import annotations

from symbio_core.records import Interval
from symbio_core.search import early_noise, widened


def test_a_lead_after_few_steps_is_less_sure_than_one_near_the_end() -> None:
    noises = [early_noise(seen, 4500) for seen in (30, 120, 1000, 4500)]
    assert noises == sorted(noises, reverse=True)
    assert noises[-1] == early_noise(9000, 4500) > 0.0, "the training's own noise is left"


def test_an_early_lead_takes_the_line_only_where_it_is_larger_than_leads_move() -> None:
    def lead(nats: float) -> Interval:
        return Interval(value=nats, low=nats - 0.005, high=nats + 0.005, confidence=0.95)

    early, late = early_noise(60, 4500), early_noise(3000, 4500)
    assert not widened(lead(-0.06), comparisons=2, training_noise_nats=early).below_zero
    assert widened(lead(-0.06), comparisons=2, training_noise_nats=late).below_zero
    assert widened(lead(-0.3), comparisons=2, training_noise_nats=early).below_zero
