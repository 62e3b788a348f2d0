"""The doctor names what is missing, and the command that mends it."""

from __future__ import annotations

from typing import Any

import pytest

from symbio_core.compute.doctor import PERMISSIONS, SERVICES, Check, examine
from symbio_core.compute.gce import Provisioner
from symbio_core.config import AccessSettings, BootSettings, GceSettings
from symbio_core.errors import NotWritable
from tests.cloud.buckets import bucket_store
from tests.cloud.compute_server import ComputeServer
from tests.cloud.storage_faults import Rule
from tests.cloud.storage_server import StorageServer
from tests.compute.conftest import HASTY, PROJECT, order

ACCOUNT = f"trainer@{PROJECT}.iam.gserviceaccount.com"
ROOM = {
    "global": {"GPUS_ALL_REGIONS": 4.0},
    "us-central1": {"NVIDIA_L4_GPUS": 1.0, "PREEMPTIBLE_NVIDIA_L4_GPUS": 1.0},
    "us-east1": {"NVIDIA_L4_GPUS": 1.0, "PREEMPTIBLE_NVIDIA_L4_GPUS": 1.0},
}


@pytest.fixture
def settings(settings: GceSettings) -> GceSettings:
    return settings.model_copy(update={"access": AccessSettings(service_account=ACCOUNT)})


@pytest.fixture
def healthy(server: ComputeServer) -> ComputeServer:
    server.world.quotas = {region: dict(metrics) for region, metrics in ROOM.items()}
    return server


def rows(server: ComputeServer, settings: GceSettings, **bucket: Any) -> dict[str, Check]:
    given = {"bucket": "gs://my-bucket/symbio", "try_bucket": lambda: "writable", **bucket}
    found = examine(Provisioner(settings, endpoint=server.url, patience=HASTY), **given)
    assert all("\n" not in row.found + row.mend for row in found)
    assert all(row.ok or row.mend.startswith(("gcloud ", "--set ")) for row in found)
    return {row.what: row for row in found}


def failing(found: dict[str, Check]) -> list[str]:
    return [what for what, row in found.items() if not row.ok]


def test_a_project_that_has_everything_passes(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    found = rows(healthy, settings)
    assert failing(found) == []
    assert found["GPUS_ALL_REGIONS"].found == "0 of 4 used, 1 needed"
    assert "PREEMPTIBLE_NVIDIA_L4_GPUS in us-east1" in found
    assert "NVIDIA_L4_GPUS in us-east1" not in found
    assert found["image"].found.startswith(settings.boot.image_family)
    assert "insert" not in healthy.methods_called()


def test_a_new_project_without_any_gpu_is_told_what_to_ask_for(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.world.quotas["global"]["GPUS_ALL_REGIONS"] = 0.0
    healthy.world.quotas["us-east1"]["PREEMPTIBLE_NVIDIA_L4_GPUS"] = 0.0
    found = rows(healthy, settings)
    assert failing(found) == ["GPUS_ALL_REGIONS", "PREEMPTIBLE_NVIDIA_L4_GPUS in us-east1"]
    quotas = f"https://console.cloud.google.com/iam-admin/quotas?project={PROJECT}"
    command = (
        "gcloud quotas preferences create --project my-project --service=compute.googleapis.com"
    )
    you = "--email=$(gcloud config get account)"
    assert found["GPUS_ALL_REGIONS"].mend == (
        f"{command} --quota-id=GPUS-ALL-REGIONS-per-project --preferred-value=1 {you}"
        f" # or ask for GPUS_ALL_REGIONS at {quotas}"
    )
    assert found["PREEMPTIBLE_NVIDIA_L4_GPUS in us-east1"].mend == (
        f"{command} --quota-id=PREEMPTIBLE-NVIDIA-L4-GPUS-per-project-region "
        f"--dimensions=region=us-east1 --preferred-value=1 {you}"
        f" # or ask for PREEMPTIBLE_NVIDIA_L4_GPUS in us-east1 at {quotas}"
    )


def test_a_quota_that_others_use_up_is_asked_for_with_theirs_counted(
    healthy: ComputeServer, provisioner: Provisioner, settings: GceSettings
) -> None:
    provisioner.launch(order())
    found = rows(healthy, settings)["PREEMPTIBLE_NVIDIA_L4_GPUS in us-central1"]
    assert found.state == "fails"
    assert "--preferred-value=2 " in found.mend


def test_both_quotas_count_where_the_full_price_is_allowed(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.world.quotas["us-central1"]["NVIDIA_L4_GPUS"] = 0.0
    found = rows(healthy, settings.model_copy(update={"allow_on_demand": True}))
    assert failing(found) == ["NVIDIA_L4_GPUS in us-central1"]


def test_without_credentials_there_is_one_line_and_its_command(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.fail("project", 401)
    found = rows(healthy, settings)
    assert failing(found) == list(found) == ["credentials"]
    assert found["credentials"].mend == "gcloud auth application-default login"


def test_a_switched_off_service_comes_with_the_command_that_switches_it_on(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.services = set(SERVICES) - {"secretmanager.googleapis.com"}
    found = rows(healthy, settings)
    assert failing(found) == ["service secretmanager"]
    command = f"gcloud services enable secretmanager.googleapis.com --project {PROJECT}"
    assert found["service secretmanager"].mend == command


def test_compute_engine_switched_off_altogether_is_told_so(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.fail("project", 403, reason="accessNotConfigured", message="has not been used before")
    found = rows(healthy, settings)
    command = f"gcloud services enable compute.googleapis.com --project {PROJECT}"
    assert found["credentials"].mend == command


def test_missing_rights_are_named_with_the_role_that_has_them(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.permissions = set(PERMISSIONS) - {"iam.serviceAccounts.actAs"}
    found = rows(healthy, settings)
    assert failing(found) == ["rights"]
    assert "iam.serviceAccounts.actAs" in found["rights"].found
    assert "roles/iam.serviceAccountUser" in found["rights"].mend


def test_a_public_address_needs_a_right_of_its_own(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.permissions = set(PERMISSIONS)
    access = AccessSettings(service_account=ACCOUNT, external_ip=True)
    public = settings.model_copy(update={"access": access})
    assert "useExternalIp" in rows(healthy, public)["rights"].found
    assert rows(healthy, settings)["rights"].ok


def test_a_zone_without_the_machine_is_named(healthy: ComputeServer, settings: GceSettings) -> None:
    healthy.fail("machineType", 404, zone="us-central1-b", count=9)
    row = rows(healthy, settings)["g2-standard-4 is offered"]
    assert not row.ok
    assert "not in us-central1-b" in row.found


def test_an_image_family_that_is_gone_is_named(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    old = settings.model_copy(update={"boot": BootSettings(image_family="gone-cu1")})
    found = rows(healthy, old)
    assert failing(found) == ["image"]
    assert found["image"].mend.startswith("gcloud compute images list")


def test_the_projects_default_account_is_a_warning_with_the_way_to_a_smaller_one(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    found = rows(healthy, settings.model_copy(update={"access": AccessSettings()}))
    assert failing(found) == ["service account"]
    row = found["service account"]
    assert row.state == "warning"
    commands, _, then = row.mend.partition(" # ")
    made = f"symbio-vm@{PROJECT}.iam.gserviceaccount.com"
    assert then == f"then --set compute.gce.access.service_account={made}"
    account, role, may_end, may_store = commands.split(" && ")
    assert account == f"gcloud iam service-accounts create symbio-vm --project {PROJECT}"
    assert all(one in role for one in ("compute.instances.delete", "compute.instances.stop"))
    assert f"--member=serviceAccount:{made} --role=projects/{PROJECT}/roles/symbioVm" in may_end
    assert may_store.startswith("gcloud storage buckets add-iam-policy-binding gs://my-bucket ")


def test_sweeping_disks_takes_rights_that_are_asked_for(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.permissions = set(PERMISSIONS) - {"compute.disks.list", "compute.disks.delete"}
    row = rows(healthy, settings)["rights"]
    assert row.found == "missing: compute.disks.delete, compute.disks.list"
    assert row.mend.startswith(f"gcloud projects add-iam-policy-binding {PROJECT} ")
    assert "--member=user:$(gcloud config get account)" in row.mend


@pytest.mark.parametrize(("accounts", "state"), [({ACCOUNT}, "ok"), (set(), "fails")])
def test_the_service_account_has_to_exist(
    accounts: set[str], state: str, healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.accounts = accounts
    row = rows(healthy, settings)["service account"]
    assert row.state == state
    assert row.ok or "gcloud iam service-accounts create trainer" in row.mend


def test_a_bucket_that_refuses_is_told_with_its_reason(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    def refuse() -> str:
        raise NotWritable("gs://my-bucket refuses to be written")

    found = rows(healthy, settings, try_bucket=refuse)
    assert failing(found) == ["bucket"]
    assert "gs://my-bucket " in found["bucket"].mend
    assert failing(rows(healthy, settings, bucket="storage")) == ["bucket"]


@pytest.mark.parametrize(
    ("rule", "command"),
    [
        (Rule("403", method="POST"), "add-iam-policy-binding gs://my-bucket"),
        (Rule("403", method="GET"), "--role=roles/storage.objectUser"),
        (Rule("403", method="DELETE"), "add-iam-policy-binding gs://my-bucket"),
        (Rule("401"), "gcloud auth application-default login"),
        (None, "gcloud storage buckets create gs://my-bucket --project my-project"),
    ],
)
def test_each_way_a_real_bucket_can_refuse_has_its_own_command(
    rule: Rule | None, command: str, healthy: ComputeServer, settings: GceSettings
) -> None:
    with StorageServer() as bucket:
        if rule is not None:
            bucket.world.add_bucket("my-bucket")
            bucket.faults.add(rule)
        store = bucket_store(bucket, "gs://my-bucket/symbio")

        def try_bucket() -> str:
            store.check_writable()
            return "writable"

        found = rows(healthy, settings, try_bucket=try_bucket)
    assert failing(found) == ["bucket"]
    assert command in found["bucket"].mend


def test_a_bucket_that_can_be_used_passes_and_keeps_nothing_of_the_try(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    with StorageServer() as bucket:
        bucket.world.add_bucket("my-bucket")
        store = bucket_store(bucket, "gs://my-bucket/symbio")

        def try_bucket() -> str:
            store.check_writable()
            return "writable"

        found = rows(healthy, settings, try_bucket=try_bucket)
        assert bucket.count("DELETE") == 1
    assert failing(found) == []


def test_a_key_that_is_to_be_passed_on_takes_rights_in_secret_manager(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.permissions = set(PERMISSIONS)
    assert rows(healthy, settings)["rights"].ok
    row = rows(healthy, settings, secrets=["PREFECT_API_KEY"])["rights"]
    assert "secretmanager.versions.add" in row.found
    assert "roles/secretmanager.admin" in row.mend


def test_an_unknown_price_is_found_before_the_start(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    found = rows(healthy, settings.model_copy(update={"zones": ("us-east4-a",), "prices": "none"}))
    assert not found["price in us-east4"].ok


def test_what_cannot_be_looked_at_is_unknown_and_not_fine(
    healthy: ComputeServer, settings: GceSettings
) -> None:
    healthy.fail("testIamPermissions", 403)
    healthy.fail("services", 403)
    found = rows(healthy, settings)
    assert found["rights"].state == found["services"].state == "unknown"
