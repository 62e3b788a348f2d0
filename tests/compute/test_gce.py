"""Google's own client against a small Compute Engine: one machine, whatever goes wrong."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import Request, urlopen

import pytest

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import label_value, machine_name, owned_by
from symbio_core.config import GceSettings
from symbio_core.errors import CloudRefused, ConfigError
from tests.cloud.compute_server import ComputeServer
from tests.compute.conftest import HASTY, PROJECT, ZONE, order
from tests.waiting import until


def resource(server: ComputeServer) -> dict[str, Any]:
    (vm,) = server.world.vms.values()
    return vm.resource


# --- what is asked for


def test_a_launched_machine_runs_with_what_was_asked_for(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order())
    assert (machine.status, machine.zone, machine.spot) == ("RUNNING", ZONE, True)
    assert machine.labels == {"symbio": "symbio", "symbio-run": "tree"}
    asked = resource(server)
    assert asked["machineType"].endswith("machineTypes/g2-standard-4")
    assert asked["scheduling"] == {
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "DELETE",
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "maxRunDuration": {"seconds": "86400"},
        "preemptionNoticeDuration": {"seconds": "120"},
    }
    (disk,) = asked["disks"]
    assert disk["autoDelete"]
    assert disk["initializeParams"]["diskSizeGb"] == "100"
    assert disk["initializeParams"]["labels"] == machine.labels


def test_the_exact_image_is_resolved_at_launch_and_recorded(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order())
    family = provisioner.settings.boot.image_family
    image = f"projects/deeplearning-platform-release/global/images/{family}-v20261101"
    assert machine.image == image
    assert resource(server)["disks"][0]["initializeParams"]["sourceImage"] == image


def test_a_machine_has_no_public_address_unless_asked(
    server: ComputeServer, provisioner: Provisioner, settings: GceSettings
) -> None:
    machine = provisioner.launch(order())
    assert "accessConfigs" not in resource(server)["networkInterfaces"][0]
    provisioner.delete(machine)
    access = settings.access.model_copy(update={"external_ip": True, "subnetwork": "lab"})
    public = settings.model_copy(update={"access": access})
    Provisioner(public, endpoint=server.url, patience=HASTY).launch(order(number=2))
    (interface,) = resource(server)["networkInterfaces"]
    assert interface["accessConfigs"] == [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]
    assert interface["subnetwork"] == "regions/us-central1/subnetworks/lab"


def test_a_machine_at_full_price_asks_for_no_notice(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order(spot=False))
    assert not machine.spot
    scheduling = resource(server)["scheduling"]
    assert scheduling["provisioningModel"] == "STANDARD"
    assert "preemptionNoticeDuration" not in scheduling


def test_the_service_account_and_its_scopes_are_as_set(
    server: ComputeServer, settings: GceSettings
) -> None:
    account = "trainer@my-project.iam.gserviceaccount.com"
    access = settings.access.model_copy(
        update={"service_account": account, "scopes": ("https://example/storage",)}
    )
    own = settings.model_copy(update={"access": access})
    Provisioner(own, endpoint=server.url, patience=HASTY).launch(order())
    assert resource(server)["serviceAccounts"] == [
        {"email": account, "scopes": ["https://example/storage"]}
    ]


def test_a_secret_is_not_put_into_metadata(server: ComputeServer, provisioner: Provisioner) -> None:
    asked = order().model_copy(update={"metadata": {"prefect-auth-string": "admin:hunter2"}})
    with pytest.raises(ConfigError, match="Secret Manager"):
        provisioner.launch(asked)
    assert server.methods_called() == []
    name = {"prefect-auth-string": "projects/my-project/secrets/prefect-auth"}
    provisioner.launch(order().model_copy(update={"metadata": name}))


# --- what goes wrong now and then


@pytest.mark.parametrize("method", ["insert", "get", "imageFamily", "operation"])
@pytest.mark.parametrize("what", [429, 503, "reset", "lost_reply"])
def test_a_launch_survives_what_passes(
    method: str, what: str | int, server: ComputeServer, provisioner: Provisioner
) -> None:
    server.fail(method, what, count=2)
    assert provisioner.launch(order()).status == "RUNNING"
    assert len(server.world.vms) == 1
    assert server.methods_called().count(method) >= 3
    inserts = [call for call in server.world.calls if call["method"] == "insert"]
    assert len({call["query"]["requestId"] for call in inserts}) == 1


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded"])
def test_a_rate_limit_told_as_forbidden_passes_too(
    reason: str, server: ComputeServer, provisioner: Provisioner
) -> None:
    server.fail("insert", 403, reason=reason, count=2)
    assert provisioner.launch(order()).status == "RUNNING"
    server.fail("get", 403, reason=reason, count=HASTY.tries)
    with pytest.raises(CloudRefused, match=reason) as error:
        provisioner.get("us-central1-a", "any")
    assert error.value.scope == "zone", "another minute helps, so the run does not end for it"


def test_a_lost_reply_to_a_deletion_is_a_deletion(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order())
    server.fail("delete", "lost_reply")
    provisioner.delete(machine)
    assert not server.world.vms


def test_tries_are_bounded(server: ComputeServer, provisioner: Provisioner) -> None:
    server.fail("insert", 503, count=100)
    with pytest.raises(CloudRefused, match="backendError"):
        provisioner.launch(order())
    assert server.methods_called().count("insert") == HASTY.tries


def test_a_service_that_cannot_be_reached_is_told_in_a_line(settings: GceSettings) -> None:
    nowhere = Provisioner(settings, endpoint="http://127.0.0.1:9", patience=HASTY)
    with pytest.raises(CloudRefused, match="cannot be reached") as error:
        nowhere.list_owned()
    assert "\n" not in str(error.value)


# --- what does not pass


def test_the_reason_is_read_from_the_operation(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    code = "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    server.fail("insert", code, zones_available="us-east1-b, us-central1-c")
    with pytest.raises(CloudRefused, match="does not have enough resources") as error:
        provisioner.launch(order())
    assert error.value.code == code
    assert error.value.scope == "zone"
    assert error.value.zones == ("us-east1-b", "us-central1-c")
    assert provisioner.list_owned() == ()


def test_a_full_quota_holds_in_its_region(server: ComputeServer, provisioner: Provisioner) -> None:
    server.world.quotas = {"us-central1": {"PREEMPTIBLE_NVIDIA_L4_GPUS": 1.0}}
    provisioner.launch(order(number=1))
    with pytest.raises(CloudRefused) as error:
        provisioner.launch(order(number=2, zone="us-central1-b"))
    assert (error.value.code, error.value.scope) == ("QUOTA_EXCEEDED", "region")
    provisioner.launch(order(number=3, zone="us-east1-b"))
    provisioner.launch(order(number=4, spot=False))


def test_a_quota_on_all_gpus_holds_everywhere(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.quotas = {"global": {"GPUS_ALL_REGIONS": 0.0}}
    with pytest.raises(CloudRefused) as error:
        provisioner.launch(order())
    assert error.value.scope == "project"


def test_a_missing_permission_holds_everywhere(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.fail("insert", 403)
    with pytest.raises(CloudRefused, match=r"compute\.instances\.insert") as error:
        provisioner.launch(order())
    assert error.value.scope == "project"
    assert server.methods_called().count("insert") == 1


def test_a_name_that_is_taken_is_told_so(server: ComputeServer, provisioner: Provisioner) -> None:
    provisioner.launch(order())
    with pytest.raises(CloudRefused) as error:
        provisioner.launch(order())
    assert error.value.code == "alreadyExists"
    assert len(server.world.vms) == 1


def test_an_image_family_that_is_gone_is_told_with_how_to_list_them(
    server: ComputeServer, settings: GceSettings
) -> None:
    boot = settings.boot.model_copy(update={"image_family": "gone-cu1"})
    old = Provisioner(
        settings.model_copy(update={"boot": boot}), endpoint=server.url, patience=HASTY
    )
    with pytest.raises(CloudRefused, match="gcloud compute images list") as error:
        old.launch(order())
    assert error.value.scope == "project"


# --- a machine's life


def test_a_machine_that_is_stopped_starts_again_with_its_disk(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order("date +%N >> boots; wc -l < boots; sleep 60"))
    until(lambda: provisioner.serial(machine)[0].strip() == "1")
    provisioner.stop(machine)
    stopped = provisioner.get(machine.zone, machine.name)
    assert stopped is not None
    assert stopped.is_asleep
    assert provisioner.start(stopped).status == "RUNNING"
    until(lambda: provisioner.serial(machine)[0].split() == ["1", "2"])


def test_the_serial_port_is_read_on_from_where_it_was_left(provisioner: Provisioner) -> None:
    machine = provisioner.launch(order("echo one; until [ -e go ]; do sleep 0.02; done; echo two"))
    until(lambda: provisioner.serial(machine)[0] == "one\n")
    _, at = provisioner.serial(machine)
    assert provisioner.serial(machine, at)[0] == ""


def test_what_is_gone_counts_as_stopped_and_as_deleted(provisioner: Provisioner) -> None:
    machine = provisioner.launch(order())
    provisioner.delete(machine)
    provisioner.delete(machine)
    provisioner.stop(machine)
    assert provisioner.get(machine.zone, machine.name) is None


def test_all_machines_are_found_over_pages_and_zones(
    server: ComputeServer, provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.cloud.compute_server.PAGE", 2)
    names = []
    for number, zone in enumerate(["us-central1-a", "us-central1-b", "us-east1-b"] * 2, 1):
        names.append(provisioner.launch(order("true", number=number, zone=zone)).name)
    server.fail("aggregatedList", 503, skip=1)
    assert [machine.name for machine in provisioner.find("tree")] == names
    assert provisioner.find("another") == ()
    assert server.methods_called().count("aggregatedList") == 3 + 1 + 3


def test_a_machine_of_another_label_is_not_ours(
    server: ComputeServer, provisioner: Provisioner, settings: GceSettings
) -> None:
    other = settings.model_copy(update={"label": "symbio-lab"})
    Provisioner(other, endpoint=server.url, patience=HASTY).launch(order())
    assert provisioner.list_owned() == ()
    assert provisioner.find("tree") == ()


def test_labels_are_added_even_while_others_add_theirs(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order())
    server.fail("setLabels", 412, count=2)
    provisioner.set_labels(machine, {"phase": "cambrian"})
    labels = resource(server)["labels"]
    assert labels == {"symbio": "symbio", "symbio-run": "tree", "phase": "cambrian"}
    assert server.methods_called().count("setLabels") == 3


def test_the_end_of_a_machine_that_nobody_watched_is_known(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    machine = provisioner.launch(order())
    server.world.crash(machine.zone, machine.name)
    provisioner.start(machine)
    server.world.preempt(machine.zone, machine.name)
    server.world.timings.scale = 0.0
    provisioner.delete(machine)
    stays = provisioner.stays(machine.zone, machine.name)
    bill = server.bill()
    assert [stay.why for stay in stays] == ["hostError", "delete"]
    assert [stay.started for stay in stays] == [row["started_ms"] / 1000 for row in bill]
    assert [stay.ended for stay in stays] == [row["ended_ms"] / 1000 for row in bill]


# --- where it may reach


def test_nothing_beyond_this_machine_is_reached(settings: GceSettings) -> None:
    with pytest.raises(AssertionError, match=r"8\.8\.8\.8"):
        urlopen(Request("http://8.8.8.8/"), timeout=1)
    with pytest.raises(AssertionError, match=r"compute\.googleapis\.com"):
        urlopen(Request("https://compute.googleapis.com/"), timeout=1)


def test_the_endpoint_may_come_from_the_environment(
    server: ComputeServer, settings: GceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYMBIO_GCE_ENDPOINT", server.url)
    assert Provisioner(settings, patience=HASTY).list_owned() == ()


def test_a_project_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"compute\.gce\.project"):
        Provisioner(GceSettings())


def test_names_are_the_same_for_the_same_run_and_differ_for_others() -> None:
    long = "a run with a very long name, Größe and all, that goes on and on and on and on"
    assert machine_name(long, 1, "me") == machine_name(long, 1, "me")
    runs, owners = (long, long + "!", "x"), ("me", "you")
    names = {machine_name(run, n, owner) for run in runs for n in (1, 2) for owner in owners}
    assert len(names) == 12
    assert all(len(name) <= 63 and name.strip("-") == name for name in names)


def test_quotas_are_read_for_a_region_and_for_the_project(
    server: ComputeServer, provisioner: Provisioner
) -> None:
    server.world.quotas = {
        "us-central1": {"NVIDIA_L4_GPUS": 4.0},
        "global": {"GPUS_ALL_REGIONS": 8.0},
    }
    provisioner.launch(order(spot=False))
    assert provisioner.quotas("us-central1") == {"NVIDIA_L4_GPUS": (4.0, 1.0)}
    assert provisioner.quotas() == {"GPUS_ALL_REGIONS": (8.0, 1.0)}


def test_a_control_of_the_server_answers_over_http(server: ComputeServer) -> None:
    with urlopen(f"{server.url}/control/bill", timeout=5) as reply:
        assert json.load(reply) == []
    assert PROJECT == "my-project"


def test_the_owners_label_tells_storage_roots_apart_and_fits(settings: GceSettings) -> None:
    mine = owned_by("gs://runs/here", settings)
    assert mine.label == owned_by("gs://runs/here/", settings).label
    assert mine.label.startswith("symbio-")
    assert mine.label != owned_by("gs://runs/there", settings).label
    longest = settings.model_copy(update={"label": "l" * 54})
    GceSettings.model_validate(longest.model_dump())
    label = owned_by("gs://runs/here", longest).label
    assert label_value(label) == label
