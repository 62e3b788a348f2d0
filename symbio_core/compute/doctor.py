"""Is everything there that a cloud run needs? Each check says what it found and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal

from symbio_core.compute.failover import ACCESS_CODES, GLOBAL_QUOTA, gpu_quota, kinds, region_of
from symbio_core.compute.gce import Provisioner
from symbio_core.compute.prices import price
from symbio_core.compute.secret_manager import PERMISSIONS as SECRET_PERMISSIONS
from symbio_core.errors import BucketUnreachable, CloudRefused, SymbioError
from symbio_core.records import Record

SERVICES = {
    "compute.googleapis.com": "machines",
    "storage.googleapis.com": "the bucket",
    "secretmanager.googleapis.com": "secrets",
    "iap.googleapis.com": "symbio cloud ssh",
}
"""Google services that a cloud run uses, and what for."""
PERMISSIONS = (
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.list",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.getSerialPortOutput",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.subnetworks.use",
    "compute.zoneOperations.get",
    "compute.zoneOperations.list",
    "iam.serviceAccounts.actAs",
)
OWN_PERMISSIONS = (
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.stop",
    "compute.zoneOperations.get",
)
"""What a machine's account may do in the project, so that the machine can remove itself."""
YOU = "user:$(gcloud config get account)"
"""Whoever runs the command, as a member of a policy."""


class Check(Record):
    """One line of the table."""

    what: str
    state: Literal["ok", "warning", "fails", "unknown"]
    found: str
    mend: str = ""
    """The command that mends it; behind a `#` what else there is to know."""

    @property
    def ok(self) -> bool:
        """Nothing to mend."""
        return self.state == "ok"


def examine(
    provisioner: Provisioner,
    *,
    bucket: str = "",
    try_bucket: Callable[[], str] | None = None,
    secrets: Collection[str] = (),
) -> tuple[Check, ...]:
    """Check all that a run on a cloud machine needs, and change nothing.

    Args:
        provisioner: speaks for the project.
        bucket: the storage root, gs://…; empty if there is none.
        try_bucket: writes, reads and removes an object of its own there and says in a few words
            what it found; raises what went wrong.
        secrets: environment variables that a run would pass on by way of Secret Manager.
    """
    login = _login(provisioner)
    if not login.ok:
        return (login,)
    return (
        login,
        *_services(provisioner),
        _rights(provisioner, secrets),
        _global_quota(provisioner),
        *_quotas(provisioner),
        *_machine_types(provisioner),
        _image(provisioner),
        _account(provisioner, bucket),
        *_prices(provisioner),
        _bucket(provisioner, bucket, try_bucket),
    )


def _login(provisioner: Provisioner) -> Check:
    what, project = "credentials", provisioner.project
    try:
        provisioner.quotas()
    except CloudRefused as error:
        if error.code in ("network",):
            return _fails(what, str(error), _reach("compute.googleapis.com"))
        if error.code in ("accessNotConfigured", "SERVICE_DISABLED"):
            return _fails(what, "Compute Engine is off", _enable("compute.googleapis.com", project))
        mend = "gcloud auth application-default login"
        if error.code in ACCESS_CODES and error.code not in ("401", "required", "authError"):
            mend = (
                f"gcloud projects add-iam-policy-binding {project} --member={YOU} "
                "--role=roles/compute.instanceAdmin.v1"
            )
        return _fails(what, str(error), mend)
    return _ok(what, f"accepted for project {project}")


def _services(provisioner: Provisioner) -> Iterator[Check]:
    project = provisioner.project
    names = "&".join(f"names=projects/{project}/services/{name}" for name in SERVICES)
    path = f"/v1/projects/{project}/services:batchGet?{names}"
    try:
        told = provisioner.fetch("serviceusage.googleapis.com", path)
    except CloudRefused as error:
        yield _unknown("services", str(error), _enable(" ".join(SERVICES), project))
        return
    states = {one["name"].rpartition("/")[2]: one.get("state") for one in told.get("services", [])}
    for name, purpose in SERVICES.items():
        what = f"service {name.partition('.')[0]}"
        if states.get(name) == "ENABLED":
            yield _ok(what, f"on, for {purpose}")
        else:
            yield _fails(what, f"off; needed for {purpose}", _enable(name, project))


def _rights(provisioner: Provisioner, secrets: Collection[str]) -> Check:
    project = provisioner.project
    asked = [*PERMISSIONS, *(SECRET_PERMISSIONS if secrets else ())]
    roles = ["compute.instanceAdmin.v1", "iam.serviceAccountUser"]
    roles += ["secretmanager.admin"] if secrets else []
    if provisioner.settings.access.external_ip:
        asked.append("compute.subnetworks.useExternalIp")
    path = f"/v1/projects/{project}:testIamPermissions"
    mend = " && ".join(
        f"gcloud projects add-iam-policy-binding {project} --member={YOU} --role=roles/{role}"
        for role in roles
    )
    try:
        told = provisioner.fetch(
            "cloudresourcemanager.googleapis.com", path, {"permissions": asked}
        )
    except CloudRefused as error:
        return _unknown("rights", str(error), mend)
    missing = sorted(set(asked) - set(told.get("permissions", [])))
    if missing:
        return _fails("rights", f"missing: {', '.join(missing)}", mend)
    return _ok("rights", f"all {len(asked)} that are needed")


def _global_quota(provisioner: Provisioner) -> Check:
    needed = _gpus(provisioner)
    if not needed:
        return _ok(GLOBAL_QUOTA, "no GPU is asked for")
    quotas = _quota_of(provisioner, None)
    if isinstance(quotas, CloudRefused):
        return _unknown(GLOBAL_QUOTA, str(quotas), _ask_for(GLOBAL_QUOTA, "", needed, provisioner))
    return _room(GLOBAL_QUOTA, GLOBAL_QUOTA, quotas, needed, "", provisioner)


def _quotas(provisioner: Provisioner) -> Iterator[Check]:
    settings = provisioner.settings
    needed = _gpus(provisioner)
    for region in settings.regions:
        quotas = _quota_of(provisioner, region)
        for spot in kinds(settings):
            metric = gpu_quota(settings.machine_type, spot=spot)
            if metric is None or not needed:
                continue
            what = f"{metric} in {region}"
            if isinstance(quotas, CloudRefused):
                yield _unknown(what, str(quotas), _ask_for(metric, region, needed, provisioner))
            else:
                yield _room(what, metric, quotas, needed, region, provisioner)


def _room(
    what: str,
    metric: str,
    quotas: dict[str, tuple[float, float]],
    needed: int,
    region: str,
    provisioner: Provisioner,
) -> Check:
    if metric not in quotas:
        mend = _ask_for(metric, region, needed, provisioner)
        return _unknown(what, "the service lists none", mend)
    limit, used = quotas[metric]
    found = f"{used:g} of {limit:g} used, {needed} needed"
    if limit - used < needed:
        return _fails(what, found, _ask_for(metric, region, round(used) + needed, provisioner))
    return _ok(what, found)


def _machine_types(provisioner: Provisioner) -> Iterator[Check]:
    settings = provisioner.settings
    have, lack = [], []
    for zone in settings.zones:
        try:
            fields = {"zone": zone, "machine_type": settings.machine_type}
            provisioner.ask("MachineTypes", "get", **fields)
            have.append(zone)
        except CloudRefused:
            lack.append(zone)
    what = f"{settings.machine_type} is offered"
    mend = (
        f"gcloud compute machine-types list --filter=name={settings.machine_type} "
        f"--project {provisioner.project}"
    )
    if not have:
        yield _fails(what, f"in none of {', '.join(lack)}", mend)
    elif lack:
        yield _fails(what, f"in {', '.join(have)}, but not in {', '.join(lack)}", mend)
    else:
        yield _ok(what, f"in {', '.join(have)}")


def _image(provisioner: Provisioner) -> Check:
    try:
        return _ok("image", provisioner.image().rpartition("/")[2])
    except CloudRefused as error:
        project = provisioner.settings.boot.image_project
        mend = f"gcloud compute images list --project {project} --no-standard-images"
        return _fails("image", str(error), mend)


def _account(provisioner: Provisioner, bucket: str) -> Check:
    what, project = "service account", provisioner.project
    own = provisioner.settings.access.service_account
    if own is None:
        email = f"symbio-vm@{project}.iam.gserviceaccount.com"
        then = f" # then --set compute.gce.access.service_account={email}"
        return Check(
            what=what,
            state="warning",
            found="the project's default one, which as a rule may change all of the project",
            mend=_make_account(email, project, bucket) + then,
        )
    path = f"/v1/projects/{project}/serviceAccounts/{own}"
    create = _make_account(own, project, bucket)
    try:
        told = provisioner.fetch("iam.googleapis.com", path)
    except CloudRefused as error:
        if error.code in ("404", "notFound"):
            return _fails(what, f"{own} does not exist", create)
        return _unknown(what, str(error), create)
    if told.get("disabled"):
        mend = f"gcloud iam service-accounts enable {own} --project {project}"
        return _fails(what, f"{own} is disabled", mend)
    return _ok(what, own)


def _make_account(email: str, project: str, bucket: str) -> str:
    """Return the commands that make an account with what a machine needs and no more."""
    member = f"--member=serviceAccount:{email}"
    name = bucket.removeprefix("gs://").partition("/")[0] if bucket.startswith("gs://") else "NAME"
    return " && ".join(
        (
            f"gcloud iam service-accounts create {email.partition('@')[0]} --project {project}",
            f"gcloud iam roles create symbioVm --project {project} "
            f"--permissions={','.join(OWN_PERMISSIONS)}",
            f"gcloud projects add-iam-policy-binding {project} {member} "
            f"--role=projects/{project}/roles/symbioVm",
            f"gcloud storage buckets add-iam-policy-binding gs://{name} {member} "
            "--role=roles/storage.objectUser",
        )
    )


def _prices(provisioner: Provisioner) -> Iterator[Check]:
    settings = provisioner.settings
    for zone in {region_of(zone): zone for zone in settings.zones}.values():
        what = f"price in {region_of(zone)}"
        try:
            yield _ok(what, price(settings, zone, spot=settings.spot).note)
        except SymbioError as error:
            yield _fails(what, str(error), "--set compute.gce.usd_per_hour=PRICE")


def _bucket(provisioner: Provisioner, bucket: str, try_bucket: Callable[[], str] | None) -> Check:
    name = bucket.removeprefix("gs://").partition("/")[0]
    if not bucket.startswith("gs://") or try_bucket is None:
        mend = f"gcloud storage buckets create gs://NAME --project {provisioner.project}"
        return _fails("bucket", f"'{bucket}' is none; a cloud run keeps its state in one", mend)
    try:
        return _ok("bucket", try_bucket())
    except SymbioError as error:
        return _fails("bucket", str(error), _bucket_mend(error, name, provisioner.project))


def _bucket_mend(error: SymbioError, name: str, project: str) -> str:
    """Return what mends a bucket that did not pass; the storage's own line says what it found."""
    said = str(error)
    if isinstance(error, BucketUnreachable):
        return _reach("storage.googleapis.com")
    if "there is no bucket" in said:
        return f"gcloud storage buckets create gs://{name} --project {project}"
    if "credentials" in said:
        return "gcloud auth application-default login"
    role = "storage.legacyBucketReader" if "storage.buckets.get" in said else "storage.objectUser"
    return (
        f"gcloud storage buckets add-iam-policy-binding gs://{name} --member={YOU} "
        f"--role=roles/{role}"
    )


def _gpus(provisioner: Provisioner) -> int:
    """Return the GPUs of the machine, as the service describes its kind."""
    settings = provisioner.settings
    for zone in settings.zones:
        try:
            kind = provisioner.ask(
                "MachineTypes", "get", zone=zone, machine_type=settings.machine_type
            )
        except CloudRefused:
            continue
        return sum(int(gpu.guest_accelerator_count) for gpu in kind.accelerators)
    return 1 if gpu_quota(settings.machine_type, spot=settings.spot) else 0


def _quota_of(
    provisioner: Provisioner, region: str | None
) -> dict[str, tuple[float, float]] | CloudRefused:
    try:
        return provisioner.quotas(region)
    except CloudRefused as error:
        return error


def _ask_for(metric: str, region: str, limit: int, provisioner: Provisioner) -> str:
    where = f" in {region}" if region else ""
    scope = f"-region --dimensions=region={region}" if region else ""
    quota = f"{metric.replace('_', '-')}-per-project{scope}"
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={provisioner.project}"
    return (
        f"gcloud quotas preferences create --project {provisioner.project} "
        f"--service=compute.googleapis.com --quota-id={quota} "
        f"--preferred-value={limit} --email=$(gcloud config get account)"
        f" # or ask for {metric}{where} at {page}"
    )


def _reach(host: str) -> str:
    return f"curl -sSI https://{host} # says what keeps this machine from it"


def _enable(services: str, project: str) -> str:
    return f"gcloud services enable {services} --project {project}"


def _ok(what: str, found: str) -> Check:
    return Check(what=what, state="ok", found=found)


def _fails(what: str, found: str, mend: str) -> Check:
    return Check(what=what, state="fails", found=found, mend=mend)


def _unknown(what: str, found: str, mend: str) -> Check:
    return Check(what=what, state="unknown", found=found, mend=mend)
