"""Prices say which day they are of, and can be replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from symbio_core.compute.prices import TABLE, price
from symbio_core.config import BootSettings, GceSettings
from symbio_core.errors import ConfigError, PriceUnknown

OWN = """
dated = "2027-01-01"
source = "the invoice"
disk_usd_per_gb_month = {pd-balanced = 0.146}
[[machines]]
region = "us-central1"
machine_type = "g2-standard-4"
full_usd = 1.0
spot_usd = 0.5
"""


def test_an_l4_has_a_price_with_a_date_and_a_source() -> None:
    spot = price(GceSettings(), "us-central1-b", spot=True)
    full = price(GceSettings(), "us-central1-b", spot=False)
    assert spot.machine_usd_per_hour == pytest.approx(0.2818)
    assert full.machine_usd_per_hour == pytest.approx(0.7068)
    assert spot.disk_usd_per_hour == pytest.approx(100 * 0.10 / 730)
    assert TABLE.dated in spot.note
    assert "SkyPilot" in spot.note


def test_spot_is_cheaper_in_every_row() -> None:
    assert all(row.spot_usd < row.full_usd for row in TABLE.machines)
    keys = [(row.region, row.machine_type) for row in TABLE.machines]
    assert len(set(keys)) == len(keys)


def test_a_price_of_ones_own_comes_before_the_table() -> None:
    settings = GceSettings(machine_type="a3-highgpu-1g", usd_per_hour=4.2)
    assert price(settings, "mars-north1-a", spot=True).machine_usd_per_hour == 4.2


def test_an_unknown_price_is_refused_with_what_to_set() -> None:
    with pytest.raises(PriceUnknown, match=r"no a3-highgpu-1g in us-east1.*usd_per_hour"):
        price(GceSettings(machine_type="a3-highgpu-1g"), "us-east1-b", spot=True)
    with pytest.raises(PriceUnknown, match="it has it in: asia-southeast1, europe-west4"):
        price(GceSettings(), "me-west1-b", spot=True)


def test_a_table_of_ones_own_replaces_the_one_that_comes_along(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(OWN, encoding="utf-8")
    own = price(GceSettings(prices=str(file)), "us-central1-a", spot=True)
    assert own.usd_per_hour == pytest.approx(0.5 + 100 * 0.146 / 730)
    assert own.dated == "2027-01-01"


@pytest.mark.parametrize("text", ["dated = 1", "nonsense", OWN.replace("0.5", "-1.0")])
def test_a_table_that_makes_no_sense_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="price table") as error:
        price(GceSettings(prices=str(file)), "us-central1-a", spot=True)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        price(GceSettings(prices=str(tmp_path / "none.toml")), "us-central1-a", spot=True)


def test_a_disk_without_a_price_is_never_free(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(OWN, encoding="utf-8")
    dear = GceSettings(prices=str(file), boot=BootSettings(disk_type="hyperdisk-balanced"))
    for settings in (dear, dear.model_copy(update={"usd_per_hour": 1.0})):
        with pytest.raises(PriceUnknown, match=r"no hyperdisk-balanced in \[disk_usd"):
            price(settings, "us-central1-a", spot=True)
