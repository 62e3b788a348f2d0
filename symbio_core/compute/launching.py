"""One machine for a run, from wherever there is one: reused, started again, or launched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import product

from symbio_core.compute.calling import is_final
from symbio_core.compute.failover import Failure, GiveUp, Place, kinds, next_place
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.ledger import SHUTDOWN_S, Ledger, MachineAttempt
from symbio_core.compute.machines import Machine, Order, Stay, machine_name, reuse
from symbio_core.compute.prices import Price, price
from symbio_core.errors import CloudRefused, NoCapacity, PriceCapReached

EARLIER_S = 60.0
"""How long before the money ends the service itself pulls the plug (s)."""


def _quiet(_: object) -> None:
    """Tell nobody."""


def _wanted() -> None:
    """Want the machine, whatever happens."""


@dataclass
class Launcher:
    """Sees to it that a run has one machine, and that the ledger knows of each it ever had."""

    provisioner: Provisioner
    run_id: str
    startup_script: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    """Further keys that the machine can read; never a secret."""
    labels: dict[str, str] = field(default_factory=dict)
    cap_usd: float | None = None
    """The most that the run's machines may cost ($)."""
    ledger: Ledger = field(default_factory=Ledger)
    failures: list[Failure] = field(default_factory=list)
    """What was refused or taken back since the run last made progress; bounds what is tried."""
    remember: Callable[[Ledger], Ledger | None] = _quiet
    """Keeps the ledger; called before every order and after every change. It may return the ledger
    with what others have entered."""
    remember_failures: Callable[[Sequence[Failure]], None] = _quiet
    """Keeps the failures, so that a parent that starts again counts on from them."""
    say: Callable[[str], None] = _quiet
    """Told in a sentence what happens."""
    heed: Callable[[], None] = _wanted
    """Asked before each order and each start; raises where no machine is wanted any more."""
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def bring_up(self, doomed: Collection[str] = ()) -> Machine:
        """Return the run's machine, running: the one it has, or one from the next place.

        Args:
            doomed: names of machines not to go on with; they are deleted first.

        Raises:
            NoCapacity: every place was tried; the message says what to ask for and where.
            PriceCapReached: the cap leaves no money for a machine.
            PriceUnknown: what a machine costs is not known for every zone.
            CloudRefused: the service could not be reached.
        """
        settings = self.provisioner.settings
        for zone, spot in product(settings.zones, kinds(settings)):
            price(settings, zone, spot=spot)  # Told now, not once the search comes there.
        while (found := self._reused(doomed)) is None:
            decision = next_place(settings, self.failures, self.clock())
            if isinstance(decision, GiveUp):
                # Whoever reads that and starts the run again wants every place tried anew.
                self.forget_failures()
                raise NoCapacity(decision.reason)
            if decision.wait_s > 0.0:
                self.say(f"{decision.place.zone} rests for another {decision.wait_s:.0f} s")
                self.sleep(decision.wait_s)
            self.heed()
            machine = self._launched(decision.place)
            if machine is not None:
                return machine
        return found

    def lost(self, machine: Machine, code: str) -> None:
        """Note that a machine was taken back or broke, so that the next comes from elsewhere."""
        place = Place(zone=machine.zone, spot=machine.spot)
        self._count(Failure(place=place, code=code, at_s=self.clock()))

    def forget_failures(self) -> None:
        """Take every place for worth a try again: the run got on, or its end was told."""
        if self.failures:
            self.failures.clear()
            self.remember_failures(())

    def settle(self) -> Ledger:
        """Bring the ledger up to what the service says about each machine's time."""
        for one in self.ledger.attempts:
            if not one.is_over:
                self._keep(self._asked(one))
        return self.ledger

    def remove_all(self) -> None:
        """Delete every machine of the run, and settle the ledger."""
        found = {(one.zone, one.name) for one in self.provisioner.find(self.run_id)}
        # What was ordered a moment ago may be on no list yet.
        ordered = {(one.zone, one.name) for one in self.ledger.attempts if not one.is_over}
        for zone, name in sorted(found | ordered):
            self.provisioner.delete_by_name(zone, name)
        self.settle()

    def _asked(self, one: MachineAttempt) -> Ledger:
        stays = self.provisioner.stays(one.zone, one.name)
        machine = self.provisioner.get(one.zone, one.name)
        if machine is not None:
            if machine.is_asleep:
                # Also where an operation of a kind that nobody knew ended it.
                stays = _ended(stays, machine.stopped or self.clock(), machine.status)
            return self.ledger.told(one.name, stays).made_from(one.name, machine.image)
        if not stays:
            return self.ledger.refused(one.name, one.refused or "never granted")
        # If nothing says since when it is gone, it is since now.
        return self.ledger.told(one.name, _ended(stays, self.clock(), "gone"), is_over=True)

    def _reused(self, doomed: Collection[str]) -> Machine | None:
        """Return a machine that the run already has, running; remove those beyond one."""
        machines = self._at_rest(doomed)
        plan = reuse(machines)
        for machine in plan.remove:
            self.say(f"removing {machine.name}: a run has one machine")
            self.provisioner.delete(machine)
        if plan.keep is None:
            return None
        self._adopt(plan.keep)
        self.settle()
        if plan.action == "start" and not self._is_affordable(plan.keep):
            self.say(f"removing {plan.keep.name}: it may run for longer than the money lasts")
            self._drop(plan.keep)
            return None
        self.heed()
        try:
            if plan.action == "start":
                self.say(f"starting {plan.keep.name} in {plan.keep.zone} again")
                kept = self.provisioner.start(plan.keep)
            else:
                kept = self.provisioner.until_running(plan.keep)
        except CloudRefused as error:
            self._failed(error, Place(zone=plan.keep.zone, spot=plan.keep.spot))
            self._drop(plan.keep)
            return None
        self.settle()
        return kept

    def _drop(self, machine: Machine) -> None:
        # Its disk holds nothing that the bucket does not; a fresh machine goes anywhere.
        self.provisioner.delete(machine)
        self.settle()

    def _is_affordable(self, machine: Machine) -> bool:
        """Say whether a start leaves the cap whole even if nobody but the service ends it."""
        cost = price(self.provisioner.settings, machine.zone, spot=machine.spot)
        longest_s = self._longest_s(cost)
        return math.isinf(longest_s) or (machine.max_run_s or math.inf) <= longest_s

    def _longest_s(self, cost: Price) -> float:
        """Return when the service has to end a machine that begins now (s)."""
        left_s = self.ledger.seconds_left(self.cap_usd, self.clock(), cost)
        return left_s + SHUTDOWN_S - EARLIER_S if left_s > 0.0 else 0.0

    def _at_rest(self, doomed: Collection[str]) -> tuple[Machine, ...]:
        """Return the run's machines once none of them is on its way out."""
        for machine in self.provisioner.find(self.run_id):
            if machine.name in doomed:
                self.provisioner.delete(machine)
            elif self._is_outdated(machine):
                self.say(f"removing {machine.name}: it was started with other code or settings")
                self.provisioner.delete(machine)
            elif machine.status == "STOPPING":
                self.provisioner.until_stopped(machine)
        return self.provisioner.find(self.run_id)

    def _is_outdated(self, machine: Machine) -> bool:
        """Say whether a machine was told something else than one launched now would be."""
        told = machine.attributes
        return any(told.get(key, "") != value for key, value in self.metadata.items())

    def _launched(self, place: Place) -> Machine | None:
        attempt, max_run_s = self._attempt(place)
        self._keep(self.ledger.ordered(attempt))
        kind = "spot" if place.spot else "full price"
        self.say(f"ordering {attempt.machine_type} ({kind}) in {place.zone}")
        order = Order(
            run_id=self.run_id,
            name=attempt.name,
            zone=place.zone,
            spot=place.spot,
            startup_script=self.startup_script,
            metadata=self.metadata,
            labels=self.labels,
            max_run_s=max_run_s,
        )
        try:
            machine = self.provisioner.launch(order)
        except CloudRefused as error:
            self._failed(error, place)
            if is_final(error.code):
                self._keep(self.ledger.refused(attempt.name, error.code))
            else:
                self._withdraw(place, attempt)
            return None
        self.settle()
        return machine

    def _withdraw(self, place: Place, attempt: MachineAttempt) -> None:
        """Delete a machine that may still come: it must not."""
        try:
            self.provisioner.delete_by_name(place.zone, attempt.name)
            self.settle()
        except CloudRefused as error:
            # Its order stays open in the ledger, and is asked about again before the next.
            self.say(f"cannot see whether {attempt.name} came: {error}")

    def _attempt(self, place: Place) -> tuple[MachineAttempt, int | None]:
        settings = self.provisioner.settings
        cost = price(settings, place.zone, spot=place.spot)
        now = self.clock()
        longest_s = self._longest_s(cost)
        if not longest_s:
            spent = self.ledger.usd(now)
            raise PriceCapReached(
                f"${spent:.2f} of the cap of ${self.cap_usd:.2f} are spent and the rest pays for "
                f"no further machine in {place.zone} ({cost.note})"
            )
        attempt = MachineAttempt(
            name=machine_name(self.run_id, len(self.ledger.attempts) + 1, settings.label),
            zone=place.zone,
            machine_type=settings.machine_type,
            spot=place.spot,
            price=cost,
            ordered=now,
        )
        return attempt, None if math.isinf(longest_s) else int(longest_s)

    def _adopt(self, machine: Machine) -> None:
        """Enter a machine that the ledger does not know, or takes for refused: it costs."""
        known = next((one for one in self.ledger.attempts if one.name == machine.name), None)
        if known is not None:
            if known.is_over:
                self._keep(self.ledger.reopened(machine.name))
            return
        cost = price(self.provisioner.settings, machine.zone, spot=machine.spot)
        attempt = MachineAttempt(
            name=machine.name,
            zone=machine.zone,
            machine_type=machine.machine_type,
            spot=machine.spot,
            price=cost,
            ordered=machine.created or self.clock(),
        )
        self._keep(self.ledger.ordered(attempt))

    def _failed(self, error: CloudRefused, place: Place) -> None:
        self.say(str(error))
        self._count(Failure.of(error, place, self.clock()))

    def _count(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.remember_failures(tuple(self.failures))

    def _keep(self, ledger: Ledger) -> None:
        if ledger != self.ledger:
            self.ledger = ledger
            self.ledger = self.remember(ledger) or ledger


def _ended(stays: tuple[Stay, ...], at: float, why: str) -> tuple[Stay, ...]:
    """Return the stays with an end of the last one, where it has none yet."""
    if not stays or stays[-1].ended is not None:
        return stays
    return (*stays[:-1], stays[-1].model_copy(update={"ended": at, "why": why}))
