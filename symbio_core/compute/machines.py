"""What travels between a run and its machines: orders, machines, stays, and their names. Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from symbio_core.config import GceSettings
from symbio_core.errors import ConfigError
from symbio_core.records import Record

LABEL = "symbio"
"""Label that all machines of symbio carry; its value names their owner, see `owned_by`."""
RUN_LABEL = "symbio-run"
"""Label that names the run a machine belongs to."""
LONGEST_LABEL = 63
ALIVE = ("PENDING", "PROVISIONING", "STAGING", "RUNNING", "REPAIRING")
"""States in which a machine runs, or is about to."""
ASLEEP = ("TERMINATED", "STOPPED", "SUSPENDED")
"""States in which a machine's disk waits for a start."""
SECRET_WORDS = re.compile(r"password|passwd|token|api-key|auth|webhook|credential|private")
USER_IN_ADDRESS = re.compile(r"://[^/?#\s]*@")
SECRET_NAME = re.compile(r"^projects/[^/]+/secrets/[^/]+(/versions/[^/]+)?$")


class Order(Record):
    """A machine to launch."""

    run_id: str
    name: str
    """Name of the machine; `machine_name` makes one."""
    zone: str
    spot: bool
    startup_script: str = ""
    """What root runs at every boot."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Further keys the machine can read; never a secret, at most the name of one."""
    labels: dict[str, str] = Field(default_factory=dict)
    max_run_s: int | None = None
    """Cap on its life (s); empty takes the settings' hours."""


class Machine(Record):
    """A machine as the service describes it."""

    name: str
    zone: str
    id: str
    status: str
    """PROVISIONING, STAGING, RUNNING, STOPPING, TERMINATED …"""
    machine_type: str
    spot: bool
    labels: dict[str, str] = Field(default_factory=dict)
    image: str = ""
    """The exact image it was made from."""
    created: float | None = None
    """When it was ordered (Unix seconds)."""
    started: float | None = None
    """When it last began to run (Unix seconds)."""
    stopped: float | None = None
    """When it last stopped (Unix seconds)."""
    max_run_s: int | None = None
    """After this long the service itself ends it, counted from each start (s)."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """What it was told through its metadata, by keys that begin with `symbio-`."""
    address: str = ""
    """Its address inside the network."""

    @property
    def run(self) -> str:
        """Label of the run it belongs to."""
        return self.labels.get(RUN_LABEL, "")

    @property
    def is_alive(self) -> bool:
        """Running, or on its way to it."""
        return self.status in ALIVE

    @property
    def is_asleep(self) -> bool:
        """Stopped, with its disk kept."""
        return self.status in ASLEEP


class Disk(Record):
    """A disk that carries the project's label."""

    name: str
    zone: str
    size_gb: int
    labels: dict[str, str] = Field(default_factory=dict)
    created: float | None = None
    """When it was made (Unix seconds)."""
    is_used: bool
    """Some machine has it, running or not."""


class KeptSecret(Record):
    """A secret in Secret Manager that carries the project's label; its value is not here."""

    name: str
    """projects/PROJECT/secrets/ID."""
    labels: dict[str, str] = Field(default_factory=dict)
    created: float | None = None
    """When it was made (Unix seconds)."""

    @staticmethod
    def read(secret: dict[str, Any]) -> KeptSecret:
        """Return a secret as the service's JSON describes it."""
        stamp = secret.get("createTime", "")
        created = datetime.fromisoformat(stamp).timestamp() if stamp else None
        return KeptSecret(
            name=str(secret["name"]), labels=dict(secret.get("labels", {})), created=created
        )


class Stay(Record):
    """One stretch of a machine's life that is paid for, as the service's operations tell it."""

    name: str
    zone: str
    started: float
    """When it began to run (Unix seconds)."""
    ended: float | None
    """When it had ended (Unix seconds); None while it runs."""
    why: str
    """What ended it: `delete`, `stop`, `preempted`, `hostError` …; `running` while it runs."""


class Reuse(Record):
    """What to do with the machines that a run already has."""

    keep: Machine | None
    """The one to go on with."""
    action: Literal["use", "start", "wait", "launch"]
    remove: tuple[Machine, ...] = ()
    """The rest: a run has one machine."""


def reuse(machines: tuple[Machine, ...]) -> Reuse:
    """Choose which of a run's machines it goes on with, so that there is exactly one.

    A running one is best, then one that is starting, then one whose disk still waits; among equals
    the oldest. Machines that are going away are left to do so.
    """
    ranks = {"RUNNING": 0, "STAGING": 1, "PROVISIONING": 1, "PENDING": 1, "REPAIRING": 2}
    usable = [m for m in machines if m.is_alive or m.is_asleep]
    if not usable:
        return Reuse(keep=None, action="launch")
    ordered = sorted(usable, key=lambda m: (ranks.get(m.status, 3), m.created or 0.0, m.name))
    best = ordered[0]
    if best.status == "RUNNING":
        action: Literal["use", "start", "wait"] = "use"
    else:
        action = "wait" if best.is_alive else "start"
    return Reuse(keep=best, action=action, remove=tuple(ordered[1:]))


def label_value(text: str) -> str:
    """Return ``text`` as a label's value: lowercase, digits, `_` and `-`, at most 63 characters.

    A text that has to be changed gets a piece of its hash, so that two texts never share a value.
    """
    value = re.sub(r"[^a-z0-9_-]", "-", text.lower())
    if value == text and len(value) <= LONGEST_LABEL:
        return value
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{value[: LONGEST_LABEL - 9]}-{mark}"


def owned_by(root: str, settings: GceSettings) -> GceSettings:
    """Return the settings with the owner's label: theirs, and the mark of a storage root.

    Runs are known by their name within a root only, so that all that is found, adopted or swept up
    in a project has to be of the same root.
    """
    mark = hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:8]
    return settings.model_copy(update={"label": f"{settings.label}-{mark}"})


def machine_name(run_id: str, number: int, owner: str) -> str:
    """Return the name of a run's machine, counted from 1: the same run and number, the same name.

    Two parents that launch the same machine therefore collide instead of paying twice.
    """
    return f"{run_stem(run_id, owner)}-{number}"


def run_stem(run_id: str, owner: str) -> str:
    """Return what the names of all that belongs to a run begin with; no two runs share one.

    Args:
        run_id: its name within its storage root.
        owner: label of that root; see `owned_by`.
    """
    stem = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    mark = hashlib.sha256(f"{owner}/{run_id}".encode()).hexdigest()[:6]
    return f"symbio-{stem[:40].rstrip('-')}-{mark}"


def check_metadata(metadata: dict[str, str]) -> None:
    """Refuse metadata that may hold a secret: whoever may look at a machine can read it.

    Raises:
        ConfigError: a key speaks of a secret and its value is not the name of one, or a value is
            an address with a user or a password.
    """
    for key, value in metadata.items():
        if USER_IN_ADDRESS.search(value):
            raise ConfigError(
                f"the address in metadata '{key}' holds a user or a password before '@', and "
                "metadata can be read by many; set compute.elsewhere.prefect_api_url to the "
                "address without them, and PREFECT_API_AUTH_STRING in your environment"
            )
        if SECRET_WORDS.search(key.lower()) and not SECRET_NAME.match(value):
            raise ConfigError(
                f"metadata '{key}' looks like a secret, and metadata can be read by many; keep it "
                "in Secret Manager and pass its name, projects/PROJECT/secrets/NAME"
            )
