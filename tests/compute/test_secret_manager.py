"""A secret reaches the machines of one run by way of Secret Manager, and leaves with the run."""

from __future__ import annotations

import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from symbio_core.compute.gce import Provisioner
from symbio_core.compute.machines import LABEL, RUN_LABEL
from symbio_core.compute.secret_manager import SecretKeeper, list_secrets
from symbio_core.compute.sweep import find_orphans, sweep
from symbio_core.config import AccessSettings, GceSettings
from symbio_core.errors import CloudRefused
from tests.cloud.compute_server import DEFAULT_ACCOUNT, ComputeServer
from tests.compute.conftest import HASTY, order

KEY = "PREFECT_API_KEY"
VALUE = "pnu_never-to-be-seen"


@pytest.fixture
def keeper(provisioner: Provisioner) -> SecretKeeper:
    return SecretKeeper(provisioner, "tree")


def read(server: ComputeServer, name: str, token: str) -> int:
    url = f"{server.url}/v1/{name}/versions/latest:access"
    try:
        with urlopen(Request(url, headers={"Authorization": token}), timeout=10) as reply:
            return int(reply.status)
    except HTTPError as error:
        with error:
            return error.code


def test_a_secret_is_labelled_ends_by_itself_and_is_read_by_the_machine_alone(
    keeper: SecretKeeper, provisioner: Provisioner, server: ComputeServer
) -> None:
    provisioner.launch(order())
    name = keeper.keep(KEY, VALUE)
    (secret,) = server.vault.secrets.values()
    assert name == secret.about["name"]
    assert secret.about["labels"] == {LABEL: "symbio", RUN_LABEL: "tree"}
    assert secret.about["ttl"] == f"{24 * 3600 + 86_400}s"
    assert secret.readers == {f"serviceAccount:{DEFAULT_ACCOUNT}"}
    assert secret.values == [VALUE.encode()]
    assert read(server, name, "Bearer ya29.test") == 200
    assert read(server, name, "Bearer another") == 403


def test_the_reader_is_the_account_of_the_settings(
    server: ComputeServer, settings: GceSettings
) -> None:
    access = AccessSettings(service_account="gpu@my-project.iam.gserviceaccount.com")
    own = settings.model_copy(update={"access": access})
    SecretKeeper(Provisioner(own, endpoint=server.url, patience=HASTY), "tree").keep(KEY, VALUE)
    (secret,) = server.vault.secrets.values()
    assert secret.readers == {"serviceAccount:gpu@my-project.iam.gserviceaccount.com"}


def test_a_parent_that_starts_again_keeps_the_same_secret_with_its_own_value(
    keeper: SecretKeeper, provisioner: Provisioner, server: ComputeServer
) -> None:
    keeper.keep(KEY, VALUE)
    keeper.keep(KEY, VALUE)
    SecretKeeper(provisioner, "tree").keep(KEY, "pnu_new")
    (secret,) = server.vault.secrets.values()
    assert secret.values == [VALUE.encode(), b"pnu_new"]


def test_a_secret_that_somebody_removed_is_made_again(
    keeper: SecretKeeper, server: ComputeServer
) -> None:
    keeper.keep(KEY, VALUE)
    server.vault.secrets.clear()
    keeper.keep(KEY, VALUE)
    (secret,) = server.vault.secrets.values()
    assert secret.values == [VALUE.encode()]


def test_a_run_takes_its_own_secrets_away_and_no_others(
    keeper: SecretKeeper, provisioner: Provisioner
) -> None:
    keeper.keep(KEY, VALUE)
    kept = SecretKeeper(provisioner, "other").keep(KEY, VALUE)
    # A process that starts again and was told no secret removes it as well.
    SecretKeeper(provisioner, "tree").remove_all()
    assert [secret.name for secret in list_secrets(provisioner)] == [kept]


def test_a_refusal_names_the_variable_and_never_its_value(
    keeper: SecretKeeper, server: ComputeServer
) -> None:
    server.fail("addSecretVersion", 403, count=9)
    with pytest.raises(CloudRefused, match=f"{KEY} cannot be put into Secret Manager") as refused:
        keeper.keep(KEY, VALUE)
    told = f"{refused.value} {refused.value.__cause__!r}"
    assert VALUE not in told


def test_a_project_without_secret_manager_has_no_secrets_to_remove(
    keeper: SecretKeeper, server: ComputeServer
) -> None:
    server.fail("listSecrets", 403, count=9)
    keeper.remove_all()


def test_the_sweep_removes_the_secrets_of_runs_that_are_gone(
    keeper: SecretKeeper, provisioner: Provisioner
) -> None:
    keeper.keep(KEY, VALUE)
    kept = SecretKeeper(provisioner, "alive").keep(KEY, VALUE)

    def later() -> float:
        return time.time() + 3600.0

    assert find_orphans(provisioner, live_runs=None, clock=later) == ()
    found = find_orphans(provisioner, live_runs={"alive"}, clock=later)
    assert [(one.kind, one.run) for one in found] == [("secret", "tree")]
    assert all(one.removed for one in sweep(provisioner, found))
    assert [secret.name for secret in list_secrets(provisioner)] == [kept]
