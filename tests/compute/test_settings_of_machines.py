"""Contradictions between settings of a cloud machine are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from symbio_core.config import RunConfig, changed
from symbio_core.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"compute.kind": "gce"}, "set compute.gce.project=YOUR-PROJECT"),
        ({"compute.gce.project": "My Project"}, "match pattern"),
        ({"compute.gce.zones": []}, "at least 1 item"),
        ({"compute.gce.zones": ["us-central1"]}, "match pattern"),
        ({"compute.gce.zones": ["us-east1-b", "us-east1-b"]}, "names a zone twice"),
        ({"compute.gce.spot": False, "compute.gce.allow_on_demand": True}, "spot is off"),
        ({"compute.gce.boot.disk_type": "pd-standard"}, "take boot.disk_type=pd-balanced"),
        ({"compute.gce.notice_s": 300}, "less than or equal to 120"),
        ({"compute.gce.label": "Symbio"}, "match pattern"),
        ({"compute.gce.endpoint": "compute.example.com"}, "match pattern"),
        (
            {"compute.elsewhere.prefect_api_url": "https://me:hunter2@prefect.example.com/api"},
            "set PREFECT_API_AUTH_STRING",
        ),
        ({"budget.max_usd": 0}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        changed(RunConfig(), changes)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_run_stays_on_this_machine_unless_told() -> None:
    assert RunConfig().compute.kind == "local"


def test_regions_follow_the_zones_in_their_order() -> None:
    zones = ["us-east1-b", "us-central1-a", "us-east1-c"]
    config = changed(RunConfig(), {"compute.gce.zones": zones})
    assert config.compute.gce.regions == ("us-east1", "us-central1")
