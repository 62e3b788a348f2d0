from __future__ import annotations

from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools.validation import ValidationError, validate

from deployments.refresh import FILE, deployed_configs, refreshed
from symbio_core.config import PHASES, RunConfig

TEXT = FILE.read_text(encoding="utf-8")
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(TEXT)["deployments"]


def load(entrypoint: str) -> Flow[..., Any]:
    # A placeholder would hide that the module cannot be imported.
    return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)


@pytest.mark.parametrize("entrypoint", sorted({d["entrypoint"] for d in DEPLOYMENTS}))
def test_every_entrypoint_is_a_module_path_that_loads(entrypoint: str) -> None:
    assert ":" not in entrypoint
    assert load(entrypoint).name == entrypoint.rpartition(".")[2]


def test_an_entrypoint_that_is_not_there_does_not_load() -> None:
    with pytest.raises(ImportError):
        load("flows.nowhere.symbio")


def test_every_phase_has_a_deployment_of_its_own() -> None:
    named = {d["entrypoint"].rpartition(".")[2] for d in DEPLOYMENTS}
    assert named == {"symbio", *PHASES}


def test_the_file_holds_the_profiles_as_they_are() -> None:
    assert refreshed(TEXT) == TEXT, "run `make fix`"


def test_what_the_file_holds_is_the_whole_configuration_again() -> None:
    for deployment in DEPLOYMENTS:
        if deployment["name"] in deployed_configs():
            held = RunConfig.model_validate(deployment["parameters"]["config"])
            assert held == deployed_configs()[deployment["name"]]


def test_no_deployment_shares_a_run_id_and_the_schedule_waits_to_be_switched_on() -> None:
    assert all("run_id" not in d.get("parameters", {}) for d in DEPLOYMENTS)
    assert [s["active"] for d in DEPLOYMENTS for s in d.get("schedules", [])] == [False]


def test_no_deployment_has_a_limit_that_ends_its_run_when_the_server_restarts() -> None:
    assert all("concurrency_limit" not in deployment for deployment in DEPLOYMENTS)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"seed": -1}, "config.seed"),
        ({"optimiser": {"name": "sgd"}}, "config.optimiser.name"),
        ({"sed": 1}, "config"),
        ({"model": {"layers": 2}}, "config.model"),
    ],
)
def test_the_form_refuses_what_the_settings_refuse(config: dict[str, Any], field: str) -> None:
    schema: Any = load("flows.autonomous.symbio").parameters.model_dump()
    validate({"config": {"seed": 7}}, schema, raise_on_error=True)
    with pytest.raises(ValidationError, match=f"'{field}'"):
        validate({"config": config}, schema, raise_on_error=True)


def test_the_form_explains_every_setting() -> None:
    schema = load("flows.autonomous.symbio").parameters.model_dump()
    for name, group in schema["definitions"].items():
        described = {key for key, field in group["properties"].items() if "description" in field}
        plain = {key for key, field in group["properties"].items() if "$ref" not in str(field)}
        assert plain <= described, name
