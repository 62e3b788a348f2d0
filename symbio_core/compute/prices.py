"""What an hour of a machine costs: a dated table, your own table, or your own figure."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from symbio_core.compute.failover import region_of
from symbio_core.config import GceSettings
from symbio_core.errors import ConfigError, PriceUnknown
from symbio_core.records import Record

HOURS_A_MONTH = 730.0
"""What a disk's monthly price is divided by (h)."""
MINIMUM_S = 60
"""A machine that has run at all is charged for at least this long (s)."""


class Price(Record):
    """What a machine costs while it runs, its boot disk included."""

    machine_usd_per_hour: float
    disk_usd_per_hour: float
    spot: bool
    dated: str
    """Day of the table it was taken from."""
    source: str

    @property
    def usd_per_hour(self) -> float:
        """Machine and disk together ($/h)."""
        return self.machine_usd_per_hour + self.disk_usd_per_hour

    @property
    def note(self) -> str:
        """Where the figure comes from, in a few words."""
        kind = "spot" if self.spot else "full price"
        return f"{kind} ${self.usd_per_hour:.4f}/h, {self.source}, {self.dated}"


class PriceRow(Record):
    """One machine in one region."""

    region: str
    machine_type: str
    full_usd: float = Field(gt=0.0)
    """On demand ($/h)."""
    spot_usd: float = Field(gt=0.0)
    """Spot ($/h); changes up to once a day."""


class PriceTable(Record):
    """Prices of one day."""

    dated: str
    source: str
    machines: tuple[PriceRow, ...]
    disk_usd_per_gb_month: dict[str, float]
    """By kind of disk ($ a GB and month)."""


def _row(region: str, full_usd: float, spot_usd: float) -> PriceRow:
    return PriceRow(
        region=region, machine_type="g2-standard-4", full_usd=full_usd, spot_usd=spot_usd
    )


TABLE = PriceTable(
    dated="2026-11-23",
    source="SkyPilot catalogue v8",
    machines=(
        _row("us-central1", 0.7068, 0.2818),
        _row("us-east1", 0.7068, 0.2818),
        _row("us-west1", 0.7068, 0.2818),
        _row("us-east4", 0.7045, 0.2818),
        _row("us-west4", 0.796, 0.2615),
        _row("europe-west4", 0.742, 0.315),
        _row("asia-southeast1", 0.872, 0.323),
    ),
    disk_usd_per_gb_month={
        "pd-balanced": 0.10,
        "pd-ssd": 0.17,
        "pd-standard": 0.04,
        "hyperdisk-balanced": 0.08,
    },
)
"""The table that comes along: g2-standard-4 is a third of g2-standard-12's host, plus one L4."""


def price_table(settings: GceSettings) -> PriceTable:
    """Return the table to go by: the settings' own file, or the one that comes along.

    Raises:
        ConfigError: the file cannot be read or is no price table.
    """
    if settings.prices is None:
        return TABLE
    try:
        text = Path(settings.prices).read_text(encoding="utf-8")
        return PriceTable.model_validate(tomllib.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"price table '{settings.prices}', {where}: {first['msg']}; it holds dated, source, "
            "[disk_usd_per_gb_month] and [[machines]] with region, machine_type, full_usd, spot_usd"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"price table '{settings.prices}' cannot be read: {error}; mend it, or leave "
            "compute.gce.prices empty"
        ) from error


def price(settings: GceSettings, zone: str, *, spot: bool) -> Price:
    """Return what the settings' machine costs in a zone.

    Raises:
        PriceUnknown: the table lacks the disk, or the machine and the settings give no price.
    """
    table = price_table(settings)
    disk = table.disk_usd_per_gb_month.get(settings.boot.disk_type)
    if disk is None:
        raise PriceUnknown(
            f"the price table of {table.dated} has no {settings.boot.disk_type} in "
            "[disk_usd_per_gb_month]; add it there, or take another compute.gce.boot.disk_type"
        )
    disk_usd = settings.boot.disk_gb * disk / HOURS_A_MONTH
    if settings.usd_per_hour is not None:
        return Price(
            machine_usd_per_hour=settings.usd_per_hour,
            disk_usd_per_hour=disk_usd,
            spot=spot,
            dated="as set",
            source="compute.gce.usd_per_hour",
        )
    region, machine = region_of(zone), settings.machine_type
    for row in table.machines:
        if (row.region, row.machine_type) == (region, machine):
            return Price(
                machine_usd_per_hour=row.spot_usd if spot else row.full_usd,
                disk_usd_per_hour=disk_usd,
                spot=spot,
                dated=table.dated,
                source=table.source,
            )
    known = ", ".join(sorted({row.region for row in table.machines if row.machine_type == machine}))
    raise PriceUnknown(
        f"the price table of {table.dated} has no {machine} in {region} (it has it in: "
        f"{known or 'no region'}); set compute.gce.usd_per_hour, name a table of your own in "
        "compute.gce.prices, or leave the region out of compute.gce.zones"
    )
