"""Which place to try next, given what was refused where, and what to ask for at the end. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from symbio_core.compute.calling import is_final
from symbio_core.config import GceSettings
from symbio_core.errors import CloudRefused
from symbio_core.records import Record

Scope = Literal["zone", "region", "project"]
ACCESS_CODES = (
    "IAM_PERMISSION_DENIED",
    "PERMISSION_DENIED",
    "PERMISSIONS_ERROR",
    "forbidden",
    "required",
    "authError",
    "401",
    "403",
)
OFF_CODES = ("accessNotConfigured", "SERVICE_DISABLED", "BILLING_DISABLED")
PROJECT_CODES = (*ACCESS_CODES, *OFF_CODES, "VPC_NOT_FOUND", "IMAGE_NOT_FOUND")
"""Refusals that another zone or region would repeat."""
QUOTA_CODES = ("QUOTA_EXCEEDED", "quotaExceeded")
GLOBAL_QUOTA = "GPUS_ALL_REGIONS"
EVERYWHERE = re.compile(r"_ALL_REGIONS\b|\bglobally\b")
"""How the message of a quota tells that no other region helps."""
PREEMPTED = "PREEMPTED"
"""Code of a machine that was granted and taken back."""
GPUS = {
    "g2-": "NVIDIA_L4_GPUS",
    "a2-highgpu": "NVIDIA_A100_GPUS",
    "a2-megagpu": "NVIDIA_A100_GPUS",
    "a2-ultragpu": "NVIDIA_A100_80GB_GPUS",
    "a3-": "NVIDIA_H100_GPUS",
}
"""Quota that a family of machines draws on."""


class Place(Record):
    """A zone, and how the machine is paid there."""

    zone: str
    spot: bool


class Failure(Record):
    """A place that refused a machine, or took it back."""

    place: Place
    code: str
    message: str = ""
    scope: Scope = "zone"
    at_s: float
    """When (s, on the caller's clock)."""
    zones: tuple[str, ...] = ()
    """Zones that the refusal named as having room."""

    @staticmethod
    def of(error: CloudRefused, place: Place, at_s: float) -> Failure:
        """Return what a refusal says about a place."""
        return Failure(
            place=place,
            code=error.code,
            message=str(error),
            scope=error.scope,
            at_s=at_s,
            zones=error.zones,
        )


class Try(Record):
    """The place to try next."""

    place: Place
    wait_s: float = 0.0
    """How long it still rests (s)."""


class GiveUp(Record):
    """Nothing is left to try."""

    reason: str
    """One sentence: what to ask for, and where."""


def next_place(settings: GceSettings, failures: Sequence[Failure], now_s: float) -> Try | GiveUp:
    """Choose the next place.

    A stockout rests its zone, each time twice as long, and after ``tries_per_zone`` closes it; a
    quota closes its region; a missing permission or a quota of the whole project ends the search.
    Spot comes first; the full price follows where allowed, once spot is closed everywhere.

    Args:
        settings: the zones in their order, and how often and how soon to come back to one.
        failures: what was refused since the run last had a machine that worked, oldest first.
        now_s: the time on the clock of the failures (s).

    Returns:
        A place, or the sentence to stop with. At most zones × tries × kinds of price failures
        lead to that sentence.
    """
    for failure in failures:
        if failure.scope == "project":
            return GiveUp(reason=_what_to_mend(settings, failure))
    for spot in kinds(settings):
        places = [_Known(settings, Place(zone=z, spot=spot), failures) for z in settings.zones]
        open_places = [known for known in places if known.is_open]
        if open_places:
            return _best(open_places, failures, now_s)
    return GiveUp(reason=_nowhere(settings, failures))


def kinds(settings: GceSettings) -> tuple[bool, ...]:
    """Return the kinds of price in the order to try them: spot is True."""
    if not settings.spot:
        return (False,)
    return (True, False) if settings.allow_on_demand else (True,)


def region_of(zone: str) -> str:
    """Return the region that a zone lies in."""
    return zone.rpartition("-")[0]


def scope_of(code: str, message: str) -> Scope:
    """Say how far a refusal holds: in this zone, in its region, or in the whole project.

    Source:
        SkyPilot, `sky/backends/cloud_vm_ray_backend.py`, `_gcp_handler`; what blocks the whole
        cloud there blocks the project here, which is all that a run has.
    """
    if code in PROJECT_CODES or (code in QUOTA_CODES and EVERYWHERE.search(message)):
        return "project"
    if "disk size" in message.lower() and "smaller" in message.lower():
        return "project"
    return "region" if code in QUOTA_CODES else "zone"


def refusal(
    code: str, message: str, zone: str, zones: tuple[str, ...] = (), status: int | None = None
) -> CloudRefused:
    """Return the error for what the service answered.

    Args:
        code: the service's own word for it.
        message: its sentence.
        zone: where it was asked; empty for what concerns the project.
        zones: zones that the answer names as having room.
        status: HTTP status, where the request itself was refused.
    """
    scope = scope_of(code, message)
    if status == 403 and code not in QUOTA_CODES and is_final(code):
        scope = "project"
    where = f" in {zone}" if zone and scope != "project" else ""
    text = " ".join(message.split())
    return CloudRefused(
        f"Google Cloud refused{where}: {text} ({code})", code=code, scope=scope, zones=zones
    )


def gpu_quota(machine_type: str, *, spot: bool) -> str | None:
    """Return the regional quota that a machine's GPUs draw on; None if it has none we know."""
    for family, metric in GPUS.items():
        if machine_type.startswith(family):
            return f"PREEMPTIBLE_{metric}" if spot else metric
    return None


class _Known:
    """What the failures say of one place."""

    def __init__(self, settings: GceSettings, place: Place, failures: Sequence[Failure]) -> None:
        self.place = place
        self.index = settings.zones.index(place.zone)
        self.own = [failure for failure in failures if failure.place == place]
        full = any(
            failure.scope == "region"
            and failure.place.spot == place.spot
            and region_of(failure.place.zone) == region_of(place.zone)
            for failure in failures
        )
        self.is_open = not full and len(self.own) < settings.tries_per_zone
        self.ready_s = float("-inf")
        if self.own:
            rest = settings.retry_after_s * 2.0 ** (len(self.own) - 1)
            self.ready_s = self.own[-1].at_s + rest


def _best(places: list[_Known], failures: Sequence[Failure], now_s: float) -> Try:
    hinted = failures[-1].zones if failures else ()
    ready = [known for known in places if known.ready_s <= now_s]
    if ready:
        first = min(ready, key=lambda k: (k.place.zone not in hinted, len(k.own), k.index))
        return Try(place=first.place)
    first = min(places, key=lambda k: (k.ready_s, k.index))
    return Try(place=first.place, wait_s=first.ready_s - now_s)


def _what_to_mend(settings: GceSettings, failure: Failure) -> str:
    project = settings.project
    quotas = f"https://console.cloud.google.com/iam-admin/quotas?project={project}"
    if failure.code in QUOTA_CODES:
        return (
            f"project {project} is at a limit that holds for all regions; ask for "
            f"{_wanted(settings, failure)} at {quotas}"
        )
    if failure.code in OFF_CODES:
        return (
            f"Compute Engine is switched off in project {project}; run `gcloud services enable "
            f"compute.googleapis.com --project {project}` and see that billing is on"
        )
    if failure.code == "VPC_NOT_FOUND":
        return (
            f"network {settings.access.network} does not exist in project {project}; name one of "
            f"`gcloud compute networks list --project {project}` in compute.gce.access.network"
        )
    if "disk size" in failure.message.lower():
        return (
            f"the boot disk of {settings.boot.disk_gb} GB is smaller than its image; "
            "raise compute.gce.boot.disk_gb"
        )
    if failure.code in ACCESS_CODES:
        return (
            f"{_first_line(failure.message)}; ask an owner of project {project} for "
            "roles/compute.instanceAdmin.v1 and roles/iam.serviceAccountUser, or run `gcloud auth "
            "application-default login` as someone who has them"
        )
    return f"{_first_line(failure.message)}; see `symbio cloud doctor`"


def _nowhere(settings: GceSettings, failures: Sequence[Failure]) -> str:
    advice = []
    short = [failure for failure in failures if failure.scope == "region"]
    for spot in dict.fromkeys(failure.place.spot for failure in short):
        alike = [failure for failure in short if failure.place.spot == spot]
        regions = dict.fromkeys(region_of(failure.place.zone) for failure in alike)
        advice.append(
            f"ask for {_wanted(settings, alike[0])} in {' or '.join(regions)} at "
            f"https://console.cloud.google.com/iam-admin/quotas?project={settings.project}"
        )
    if len(short) < len(failures):
        advice.append("add zones to compute.gce.zones")
        if settings.spot and not settings.allow_on_demand:
            advice.append("set compute.gce.allow_on_demand=true")
        advice.append("try again later")
    tried = ", ".join(dict.fromkeys(failure.place.zone for failure in failures))
    price = " or ".join("spot" if spot else "full price" for spot in kinds(settings))
    last = _first_line(failures[-1].message or failures[-1].code)
    return (
        f"no {settings.machine_type} to be had at {price} in {tried} (last: {last}); "
        + ", or ".join(advice)
    )


def _wanted(settings: GceSettings, failure: Failure) -> str:
    """Return the quota that a failure speaks of, and how much of it a machine needs."""
    named = re.search(r"[Qq]uota '(\w+)'", failure.message)
    own = gpu_quota(settings.machine_type, spot=failure.place.spot)
    metric = named[1] if named else own or "its quota"
    limit = re.search(r"Limit: (\d+)", failure.message)
    # The name of a machine ends with its CPUs.
    cpus = re.search(r"-(\d+)$", settings.machine_type)
    need = int(cpus[1]) if cpus and "CPUS" in metric else 1
    return f"{metric} of at least {int(limit[1] if limit else 0) + need}"


def _first_line(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".; ")
