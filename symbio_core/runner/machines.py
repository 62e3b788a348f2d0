"""The machine of a run in the cloud, as its parent keeps it: one, alive, accounted for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from symbio_core import progress
from symbio_core.compute.archive import address, packed
from symbio_core.compute.calling import Patience
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.launching import Launcher
from symbio_core.compute.ledger import SHUTDOWN_S, Ledger
from symbio_core.compute.machines import Machine, check_metadata, owned_by
from symbio_core.compute.secret_manager import SecretKeeper
from symbio_core.config import RunConfig
from symbio_core.errors import CloudRefused, ConfigError, Interrupted
from symbio_core.runner.accounts import (
    read_failures,
    read_ledger,
    write_failures,
    write_ledger,
)
from symbio_core.storage import ObjectStore
from symbio_core.storage.machine_notes import MachineNote, read_note

LOOK_S = 10.0
"""The service is asked about the machine this often (s); its own word comes with every pulse."""
HEED_S = 0.5
"""A wait for the service, or for a zone, hears within this time that the run is to stop (s)."""
WIND_DOWN_S = 120.0
"""What a phase may take to come to a good end before the money is gone (s)."""
STARTUP = Path("deployments/vm/startup.sh")


class RunMachine:
    """One run's machine, from whatever place has one."""

    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        store: ObjectStore,
        *,
        api_url: str,
        project: Path | None = None,
        say: Callable[[str], None] = print,
        account: Callable[[Ledger], None] | None = None,
        secrets: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Keep the machine of a run.

        Args:
            run_id: whose machine it is.
            config: the run's settings.
            store: the storage root.
            api_url: address of the Prefect server as the parent sees it.
            project: the checkout whose code the machine runs; empty takes the current folder.
            say: told in a sentence what happens.
            account: told the ledger after each change, once it is kept.
            secrets: values that the machine needs, by environment variable; empty takes those of
                this process that `compute.elsewhere.pass_on` names.
            patience: how long to try, and how often to look.
        """
        self.run_id = run_id
        self.config = config
        self.store = store
        self.api_url = config.compute.elsewhere.prefect_api_url or api_url
        self.project = project or Path.cwd()
        self.say = say
        self.patience = patience or Patience()
        self.account = account or (lambda ledger: None)
        self.secrets = passed_on(config, os.environ if secrets is None else secrets)
        self.machine: Machine | None = None
        self.doomed: set[str] = set()
        self._called_off = threading.Event()
        self._moving = threading.Lock()
        self._kept = Ledger()
        self._ignored_boot = ""
        self._note: MachineNote | None = None
        self._up_at = self._heard_at = self._looked_at = 0.0

    @cached_property
    def launcher(self) -> Launcher:
        """What launches it; made when the first machine is needed.

        Raises:
            ConfigError: the storage root is a folder, which no other machine can see, or the
                Prefect server's address holds a password, which all would see.
        """
        root = self.config.storage.root
        if not root.startswith("gs://"):
            raise ConfigError(
                f"storage root '{root}' is a folder of this machine; compute.kind=gce needs a "
                "bucket that both sides reach: storage.root=gs://BUCKET/PREFIX"
            )
        if not self.api_url:
            raise ConfigError(
                "a machine in the cloud needs a Prefect server that it can reach; set "
                "compute.elsewhere.prefect_api_url"
            )
        data = packed(self.project)
        code, key = address(data)
        self.store.create(key, data)
        keeper = self.keeper
        metadata = attributes(self.config, self.run_id, code, self.api_url)
        metadata |= {f"symbio-secret-{name}": keeper.name(name) for name in self.secrets}
        # The parent's own address is no setting that was checked before.
        check_metadata(metadata)
        return Launcher(
            self._provisioner(replace(self.patience, sleep=self._rest)),
            self.run_id,
            startup_script=(self.project / STARTUP).read_text(encoding="utf-8"),
            metadata=metadata,
            cap_usd=self.config.budget.max_usd,
            ledger=self._read_ledger(),
            failures=list(read_failures(self.store, self.run_id)),
            remember=self._remember,
            remember_failures=lambda some: write_failures(self.store, self.run_id, some),
            say=self.say,
            heed=self._heed,
            sleep=self._rest,
        )

    @cached_property
    def keeper(self) -> SecretKeeper:
        """What passes the operator's secrets on to the machine."""
        return SecretKeeper(self._provisioner(self.patience), self.run_id)

    def _provisioner(self, patience: Patience) -> Provisioner:
        owned = owned_by(self.config.storage.root, self.config.compute.gce)
        return Provisioner(owned, patience=patience)

    def up(self) -> Machine:
        """Return the run's machine, running: the one it has, or one from the next place.

        Raises:
            NoCapacity: every place was tried; the message says what to ask for and where.
            PriceCapReached: the cap leaves no money for a machine.
            CloudRefused: the service could not be reached.
            Interrupted: somebody asked the run to stop, or called this off. A machine that was
                ordered may still come; `remove` finds it.
        """
        # A thread in here cannot be cancelled: `remove` calls it off, and waits until it is out.
        with self._moving:
            return self._up()

    def _up(self) -> Machine:
        self._heed()
        launcher = self.launcher
        for name, value in self.secrets.items():
            self.keeper.keep(name, value)
        machine = launcher.bring_up(self.doomed)
        self.doomed.clear()
        if self.machine is None or self.machine.name != machine.name:
            self.say(f"machine {machine.name} runs in {machine.zone}")
        self.machine = machine
        # The last word of an earlier boot says nothing about this one.
        before = read_note(self.store, self.run_id, machine.name)
        self._ignored_boot = before.boot if before and before.state == "ending" else ""
        self._note = None
        self._up_at = self._heard_at = self._looked_at = time.monotonic()
        return machine

    @property
    def has_spoken(self) -> bool:
        """Whether its watchdog has told of this boot, so that its worker is started."""
        return self._note is not None

    def wrong(self) -> str:
        """Return why nothing more is to be expected of the machine; empty while all is well."""
        if self.machine is None:
            return "there is no machine"
        now = time.monotonic()
        note = read_note(self.store, self.run_id, self.machine.name)
        if note is not None and note.boot != self._ignored_boot:
            if note != self._note:
                self._note, self._heard_at = note, now
            if note.state == "ending":
                return note.why
        settings = self.config.compute.elsewhere
        if self._note is None and now - self._up_at > settings.boot_s:
            return f"its worker was not up after {settings.boot_s:g} s"
        if self._note is not None and now - self._heard_at > settings.lost_after_s:
            return f"no word from it for {now - self._heard_at:.0f} s"
        return self._gone(now)

    def give_up(self, why: str) -> None:
        """Do without the machine: the next comes from elsewhere, and this one is deleted first."""
        if self.machine is not None:
            code = "PREEMPTED" if why == "preempted" else "LOST"
            self.launcher.lost(self.machine, code)
            self.doomed.add(self.machine.name)
            self.machine = None

    def progressed(self) -> None:
        """Forget what was refused: the run got on, so all places are worth a try again."""
        self.launcher.forget_failures()

    def money_ends(self) -> bool:
        """Say whether a phase that comes to its end now just stays below the cap on dollars."""
        return not self._may_go_on(SHUTDOWN_S + WIND_DOWN_S)

    def money_is_gone(self) -> bool:
        """Say whether the machine has to go now to stay below the cap on dollars."""
        return not self._may_go_on(SHUTDOWN_S)

    def call_off(self) -> None:
        """Launch nothing from now on; what is being launched is left to `remove`."""
        self._called_off.set()

    @property
    def is_called_off(self) -> bool:
        """Whether it launches nothing any more."""
        return self._called_off.is_set()

    def settle(self) -> Ledger:
        """Return what the run's machines have cost, by what the service says of them now."""
        return self._remover().settle()

    def remove(self) -> Ledger:
        """Delete every machine of the run and its secrets, and return what they have cost.

        It is called off by that, and one that is being launched in another thread is waited for.
        """
        self.call_off()
        with self._moving:
            launcher = self._remover()
            launcher.remove_all()
            self.machine = None
            self.keeper.remove_all()
        # Also what was changed by hand meanwhile: the report tells the ledger's figures.
        self.account(launcher.ledger)
        return launcher.ledger

    def _remover(self) -> Launcher:
        """Return what removes machines and settles the ledger: that takes no server and no code."""
        return Launcher(
            self.keeper.provisioner,
            self.run_id,
            startup_script="",
            metadata={},
            ledger=self._read_ledger(),
            remember=self._remember,
            say=self.say,
        )

    def _heed(self) -> None:
        if self.is_called_off or progress.stop_requested():
            raise Interrupted("stopped on request")

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._heed()
        while (left := until - time.monotonic()) > 0.0:
            self._called_off.wait(min(left, HEED_S))
            self._heed()

    def _read_ledger(self) -> Ledger:
        self._kept = read_ledger(self.store, self.run_id)
        return self._kept

    def _remember(self, ledger: Ledger) -> Ledger:
        self._kept = write_ledger(self.store, self.run_id, ledger, self._kept)
        self.account(self._kept)
        return self._kept

    def _may_go_on(self, shutdown_s: float) -> bool:
        return self.launcher.ledger.may_go_on(
            self.config.budget.max_usd,
            time.time(),
            next_look_s=2 * self.config.compute.elsewhere.poll_s,
            shutdown_s=shutdown_s,
        )

    def _gone(self, now: float) -> str:
        assert self.machine is not None
        if now - self._looked_at < min(LOOK_S, self.config.compute.elsewhere.lost_after_s / 3):
            return ""
        self._looked_at = now
        try:
            seen = self.launcher.provisioner.get(self.machine.zone, self.machine.name)
        except CloudRefused as error:
            # Its silence will tell, if it is gone.
            self.say(f"cannot look after {self.machine.name}: {error}")
            return ""
        if seen is None:
            return "it is gone"
        return "" if seen.is_alive else f"it is {seen.status}"


def passed_on(config: RunConfig, values: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets among ``values`` that a machine is to get and that no setting names."""
    elsewhere = config.compute.elsewhere
    wanted = [name for name in elsewhere.pass_on if name not in elsewhere.secrets]
    return {name: values[name] for name in wanted if values.get(name)}


def attributes(config: RunConfig, run_id: str, code: str, api_url: str) -> dict[str, str]:
    """Return what a run's machine is told through its metadata: names and numbers, no secrets.

    Args:
        config: the run's settings.
        run_id: whose machine it is.
        code: hash of the code in the storage root.
        api_url: address of the Prefect server as the machine sees it.
    """
    elsewhere = config.compute.elsewhere
    own = {
        "symbio-run": run_id,
        "symbio-root": config.storage.root,
        "symbio-code": code,
        "symbio-prefect-url": api_url,
        "symbio-at-end": config.compute.gce.at_end,
        "symbio-idle-s": f"{elsewhere.idle_s:g}",
        "symbio-beat-s": f"{elsewhere.beat_s:g}",
    }
    return own | {f"symbio-secret-{name}": where for name, where in elsewhere.secrets.items()}
