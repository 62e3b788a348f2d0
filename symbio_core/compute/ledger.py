"""What machines cost so far, and whether there is money to go on. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from symbio_core.compute.machines import Stay
from symbio_core.compute.prices import MINIMUM_S, Price
from symbio_core.records import MachineCost, Record

SHUTDOWN_S = 150.0
"""Time that an ending machine is still paid for: a checkpoint, the power button, the plug (s)."""


class MachineAttempt(Record):
    """A machine of a run: ordered, perhaps granted, at some point gone."""

    name: str
    zone: str
    machine_type: str
    spot: bool
    price: Price
    ordered: float
    """When it was asked for (Unix seconds)."""
    image: str = ""
    """The exact image it was made from, once it was granted."""
    stays: tuple[Stay, ...] = ()
    """When it ran, as the service's operations tell it."""
    refused: str = ""
    """Why it was never granted, for example `ZONE_RESOURCE_POOL_EXHAUSTED`."""
    is_over: bool = False
    """Nothing of it is left, and `stays` is complete."""

    @property
    def why(self) -> str:
        """What ended it last: `preempted`, `hostError`, `delete` …, or why it was refused."""
        if self.refused:
            return self.refused
        return self.stays[-1].why if self.stays else "ordered"

    def seconds(self, now: float) -> float:
        """Return how long it has run up to ``now`` (s)."""
        return sum(max(0.0, _end(stay, now) - stay.started) for stay in self.stays)

    def billed_s(self, now: float) -> int:
        """Return the seconds that are charged: whole ones begun, at least a minute each time."""
        return sum(_billed(stay, now, self.spot) for stay in self.stays)

    def usd(self, now: float) -> float:
        """Return what it costs up to ``now`` ($)."""
        return self.billed_s(now) * self.price.usd_per_hour / 3600.0

    def cost(self, now: float) -> MachineCost:
        """Return what a journal and a report keep of it, as it stands at ``now``."""
        return MachineCost(
            name=self.name,
            zone=self.zone,
            machine_type=self.machine_type,
            spot=self.spot,
            image=self.image,
            seconds=self.seconds(now),
            billed_s=self.billed_s(now),
            usd=self.usd(now),
            usd_per_hour=self.price.usd_per_hour,
            price_note=self.price.note,
            ended=self.why,
            is_over=self.is_over,
        )

    def is_paid(self) -> bool:
        """Say whether it runs, or may run without our knowing, and so costs more each second."""
        return not self.is_over and not self.refused and not self._rests()

    def _rests(self) -> bool:
        return bool(self.stays) and self.stays[-1].ended is not None


class Ledger(Record):
    """All machines that a run ordered, in order."""

    attempts: tuple[MachineAttempt, ...] = ()

    def ordered(self, attempt: MachineAttempt) -> Ledger:
        """Return the ledger with a machine that is about to be asked for.

        Written before the request, so that no machine is ever missing.
        """
        kept = tuple(one for one in self.attempts if one.name != attempt.name)
        return Ledger(attempts=(*kept, attempt))

    def refused(self, name: str, code: str) -> Ledger:
        """Return the ledger after a machine was not granted."""
        return self._changed(name, {"refused": code, "is_over": True})

    def reopened(self, name: str) -> Ledger:
        """Return the ledger after a machine was found that it took for refused or gone."""
        return self._changed(name, {"refused": "", "is_over": False})

    def made_from(self, name: str, image: str) -> Ledger:
        """Return the ledger with the image of a machine."""
        return self._changed(name, {"image": image})

    def told(self, name: str, stays: Sequence[Stay], *, is_over: bool = False) -> Ledger:
        """Return the ledger with what the service says about a machine's time.

        Args:
            name: the machine.
            stays: all of its stretches of time, the one under way included.
            is_over: nothing of it is left.
        """
        return self._changed(name, {"stays": tuple(stays), "is_over": is_over})

    def with_changes(self, before: Ledger, after: Ledger) -> Ledger:
        """Return this ledger with what changed between two others; all else stays as it is here."""
        known = {one.name: one for one in before.attempts}
        kept = {one.name: one for one in self.attempts}
        for one in after.attempts:
            if one.name not in kept or one != known.get(one.name):
                kept[one.name] = one
        return Ledger(attempts=tuple(kept.values()))

    def seconds(self, now: float) -> float:
        """Return machine time up to ``now`` (s)."""
        return sum(one.seconds(now) for one in self.attempts)

    def billed_s(self, now: float) -> int:
        """Return the seconds that are charged up to ``now``."""
        return sum(one.billed_s(now) for one in self.attempts)

    def usd(self, now: float) -> float:
        """Return what all machines cost up to ``now`` ($)."""
        return sum(one.usd(now) for one in self.attempts)

    def usd_if_ended(self, now: float, shutdown_s: float = SHUTDOWN_S) -> float:
        """Return what it will have cost if every machine starts to end at ``now`` ($).

        Machines that run are paid until they are gone, ``shutdown_s`` later; one that is ordered
        and not heard of yet is counted as running since its order.
        """
        return sum(_worst(one, now + shutdown_s) for one in self.attempts)

    def may_go_on(
        self,
        cap_usd: float | None,
        now: float,
        *,
        next_look_s: float,
        shutdown_s: float = SHUTDOWN_S,
    ) -> bool:
        """Say whether the cap is kept even if the end begins only at the next look.

        Args:
            cap_usd: the most the run may cost ($); None sets no cap.
            now: the time (Unix seconds).
            next_look_s: how long until this is asked again (s).
            shutdown_s: how long an ending machine is still paid for (s).
        """
        return cap_usd is None or self.usd_if_ended(now + next_look_s, shutdown_s) <= cap_usd

    def seconds_left(
        self, cap_usd: float | None, now: float, price: Price, *, shutdown_s: float = SHUTDOWN_S
    ) -> float:
        """Return how long a machine at ``price`` may work from ``now`` on before it has to end (s).

        The machine may be running, or about to be launched. Below zero it should not be launched,
        or should have ended; without a cap it is infinite.
        """
        if cap_usd is None:
            return math.inf
        left_usd = cap_usd - sum(_worst(one, now) for one in self.attempts)
        paid = any(one.is_paid() for one in self.attempts)
        # A new machine costs its first minute whatever it does; rounding up costs a second.
        extra = 1.0 if paid else 0.0
        affordable_s = left_usd / (price.usd_per_hour / 3600.0) - extra
        if not paid and affordable_s < MINIMUM_S:
            return min(affordable_s - MINIMUM_S, affordable_s - shutdown_s)
        return affordable_s - shutdown_s

    def _changed(self, name: str, changes: dict[str, object]) -> Ledger:
        return Ledger(
            attempts=tuple(
                one.model_copy(update=changes) if one.name == name else one for one in self.attempts
            )
        )


def _end(stay: Stay, now: float) -> float:
    return now if stay.ended is None else stay.ended


def _billed(stay: Stay, now: float, spot: bool) -> int:
    seconds = max(0.0, _end(stay, now) - stay.started)
    # Google charges nothing for a spot machine that it takes back within a minute.
    if spot and stay.why == "preempted" and seconds < MINIMUM_S:
        return 0
    # Stamps have milliseconds; without rounding, 60.000 s may read 60.00000005.
    return max(MINIMUM_S, math.ceil(round(seconds, 3)))


def _worst(one: MachineAttempt, at: float) -> float:
    if one.stays or not one.is_paid():
        return one.usd(at)
    seconds = max(MINIMUM_S, math.ceil(at - one.ordered))
    return seconds * one.price.usd_per_hour / 3600.0
