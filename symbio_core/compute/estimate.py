"""Hours and dollars before the start, and what they are based on. Pure."""

from __future__ import annotations

from symbio_core.compute.failover import kinds
from symbio_core.compute.prices import Price, price
from symbio_core.config import RunConfig
from symbio_core.errors import PriceUnknown
from symbio_core.records import Record

PEAKS = {
    "g2-": ("one NVIDIA L4", 121e12),
    "a2-": ("one NVIDIA A100", 312e12),
    "a3-": ("one NVIDIA H100", 989e12),
}
"""Dense bfloat16 arithmetic a second by family of machines, from NVIDIA's data sheets."""
UTILISATION = 0.3
"""Share of the peak that a small GPT's training step is assumed to reach (0..1)."""
STEP_S = 0.005
"""What every step is assumed to wait for, however small its model (s)."""
BESIDES = 0.25
"""Evaluations, battery, saves and switches of function over training time, as assumed (0..1)."""
START_S = 300.0
"""Boot, driver and installation of a machine, as assumed (s); it is paid for."""
HOURS_BETWEEN_LOSSES = 6.0
"""How often a spot machine is assumed to be taken back (h); nobody promises anything."""
PASSES = 6.0
"""Operations of a training step for each multiply-add of a forward pass: 2, and twice backward."""


class Speed(Record):
    """How fast training goes."""

    tokens_per_s: float
    """Over the whole of a run where measured, over its training steps where assumed."""
    is_measured: bool
    based_on: str


class PlaceCost(Record):
    """What a run costs in one region at one kind of price."""

    region: str
    spot: bool
    hours: float
    """Time that machines are paid for (h)."""
    usd: float | None
    """None where the price is unknown."""
    price: Price | None
    trouble: str = ""
    """Why there is no price."""


class Estimate(Record):
    """What a run will take."""

    steps: int
    tokens: float
    speed: Speed
    work_hours: float
    """Time from the first step to the report, without starts and losses of machines (h)."""
    machine: str
    places: tuple[PlaceCost, ...]
    cap_usd: float | None
    notes: tuple[str, ...]
    """What else was assumed, a sentence each."""


def assumed_speed(config: RunConfig) -> Speed:
    """Return the speed of the settings' cloud machine, from arithmetic alone.

    Source:
        Operations a token: Kaplan et al. (2020), Scaling laws for neural language models, table 1;
        share of the peak: this file's own assumption.
    """
    settings = config.compute.gce
    found = [peak for family, peak in PEAKS.items() if settings.machine_type.startswith(family)]
    name, peak = found[0] if found else (f"{settings.machine_type}, a CPU", 1e11)
    tokens = config.optimiser.batch_size * config.model.context
    work = PASSES * config.model.work(config.data.vocab_size) * tokens
    step_s = STEP_S + work / (UTILISATION * peak)
    return Speed(
        tokens_per_s=tokens / step_s,
        is_measured=False,
        based_on=(
            f"an assumption: {name} at {UTILISATION:.0%} of {peak / 1e12:g} TFLOP/s and "
            f"{1000 * STEP_S:g} ms a step; nothing was measured on it in {config.storage.root} "
            "(--like RUN goes by another run's figure)"
        ),
    )


def speed_like(config: RunConfig, other: RunConfig, tokens_per_s: float, where: str) -> Speed:
    """Return the speed that another run had, scaled by what a token costs in each model.

    Args:
        config: the run to come.
        other: the run that was measured.
        tokens_per_s: its tokens over its whole wall time (tokens/s).
        where: which run it was, and on what.
    """
    costs = [one.model.work(one.data.vocab_size) for one in (config, other)]
    scaled = tokens_per_s * costs[1] / costs[0]
    based_on = f"{tokens_per_s:,.0f} tokens/s of {where}, everything included"
    if costs[0] != costs[1]:
        based_on += f", scaled by {costs[1] / costs[0]:.2g} for the other model's work a token"
    return Speed(tokens_per_s=scaled, is_measured=True, based_on=based_on)


def told_speed(tokens_per_s: float) -> Speed:
    """Return a speed that a person gave."""
    return Speed(tokens_per_s=tokens_per_s, is_measured=True, based_on="the figure you gave")


def estimate(config: RunConfig, speed: Speed) -> Estimate:
    """Say what a run takes in each region of its settings, at each price that it may pay.

    Args:
        config: the run to come; its cap on steps is taken as spent in full.
        speed: tokens a second.
    """
    tokens = float(config.budget.steps) * config.optimiser.batch_size * config.model.context
    besides = 0.0 if speed.is_measured else BESIDES
    work_hours = tokens / speed.tokens_per_s * (1.0 + besides) / 3600.0
    cap_s = config.budget.max_seconds
    notes = [f"a machine is paid for {START_S / 60:g} min before it trains"]
    if not speed.is_measured:
        notes.append(f"evaluations, battery and saves take {BESIDES:.0%} on top of training")
    if cap_s is not None and work_hours > cap_s / 3600.0:
        work_hours = cap_s / 3600.0
        notes.append(f"budget.max_seconds ends it after {cap_s:g} s")
    settings = config.compute.gce
    if settings.spot:
        notes.append(
            f"a spot machine is taken back every {HOURS_BETWEEN_LOSSES:g} h, and that loses half "
            f"of the {config.storage.save_every} steps between saves"
        )
    places = [
        _place(config, zone, spot, work_hours, speed)
        for zone in {zone.rpartition("-")[0]: zone for zone in reversed(settings.zones)}.values()
        for spot in kinds(settings)
    ]
    return Estimate(
        steps=config.budget.steps,
        tokens=tokens,
        speed=speed,
        work_hours=work_hours,
        machine=settings.machine_type,
        places=tuple(sorted(places, key=lambda one: (one.usd is None, one.usd, one.region))),
        cap_usd=config.budget.max_usd,
        notes=tuple(notes),
    )


def _place(config: RunConfig, zone: str, spot: bool, work_hours: float, speed: Speed) -> PlaceCost:
    losses = work_hours / HOURS_BETWEEN_LOSSES if spot else 0.0
    step_s = config.optimiser.batch_size * config.model.context / speed.tokens_per_s
    again_s = losses * (START_S + step_s * config.storage.save_every / 2.0)
    hours = work_hours + (START_S + again_s) / 3600.0
    region = zone.rpartition("-")[0]
    try:
        cost = price(config.compute.gce, zone, spot=spot)
    except PriceUnknown as error:
        return PlaceCost(
            region=region, spot=spot, hours=hours, usd=None, price=None, trouble=str(error)
        )
    usd = hours * cost.usd_per_hour
    return PlaceCost(region=region, spot=spot, hours=hours, usd=usd, price=cost)
