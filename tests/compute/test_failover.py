"""Which place comes next: decided by what was refused, and never for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.compute.failover import (
    Failure,
    GiveUp,
    Place,
    Try,
    gpu_quota,
    next_place,
    region_of,
    scope_of,
)
from symbio_core.config import GceSettings

ZONES = ("us-central1-a", "us-central1-b", "us-east1-b", "europe-west4-a")
STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"


def settings(**changes: object) -> GceSettings:
    return GceSettings(**{"project": "my-project", "zones": ZONES, **changes})  # type: ignore[arg-type]


def refused(zone: str, code: str = STOCKOUT, *, at_s: float = 0.0, **more: object) -> Failure:
    message = str(more.pop("message", "refused"))
    spot = bool(more.pop("spot", True))
    return Failure(
        place=Place(zone=zone, spot=spot), code=code, message=message,
        scope=scope_of(code, message), at_s=at_s, **more,
    )  # type: ignore[arg-type] # fmt: skip


def zone_after(*failures: Failure, now_s: float = 0.0, **changes: object) -> str:
    decision = next_place(settings(**changes), failures, now_s)
    assert isinstance(decision, Try)
    return decision.place.zone


def test_the_first_zone_is_tried_first() -> None:
    assert zone_after() == "us-central1-a"


def test_after_a_stockout_the_next_zone_is_tried() -> None:
    assert zone_after(refused("us-central1-a")) == "us-central1-b"
    assert zone_after(refused("us-central1-a", "ZONE_RESOURCE_POOL_EXHAUSTED")) == "us-central1-b"


def test_after_a_full_quota_the_next_region_is_tried() -> None:
    full = refused("us-central1-a", "QUOTA_EXCEEDED", message="Quota 'PREEMPTIBLE_NVIDIA_L4_GPUS'")
    assert zone_after(full) == "us-east1-b"


def test_an_unknown_refusal_counts_for_its_zone_alone() -> None:
    assert scope_of("SOMETHING_NEW", "no idea") == "zone"
    assert zone_after(refused("us-central1-a", "SOMETHING_NEW")) == "us-central1-b"


def test_a_zone_named_as_having_room_is_preferred() -> None:
    hint = refused("us-central1-a", zones=("europe-west4-a", "asia-east1-a"))
    assert zone_after(hint) == "europe-west4-a"


def test_a_hint_never_leads_out_of_the_zones_that_were_asked_for() -> None:
    assert zone_after(refused("us-central1-a", zones=("asia-east1-a",))) == "us-central1-b"


def test_a_zone_rests_longer_after_each_failure() -> None:
    one = settings(zones=("us-central1-a",), tries_per_zone=3, retry_after_s=60.0)
    first = next_place(one, [refused("us-central1-a", at_s=10.0)], 10.0)
    again = [refused("us-central1-a", at_s=10.0), refused("us-central1-a", at_s=70.0)]
    second = next_place(one, again, 75.0)
    assert isinstance(first, Try)
    assert isinstance(second, Try)
    assert (first.wait_s, second.wait_s) == (60.0, 115.0)


def test_the_full_price_is_paid_only_where_allowed_and_only_after_spot() -> None:
    failures = [refused(zone) for zone in ZONES]
    asked = {"tries_per_zone": 1, "retry_after_s": 0.0}
    stop = next_place(settings(**asked), failures, 1.0)
    go_on = next_place(settings(**asked, allow_on_demand=True), failures, 1.0)
    assert isinstance(stop, GiveUp)
    assert "compute.gce.allow_on_demand=true" in stop.reason
    assert go_on == Try(place=Place(zone="us-central1-a", spot=False))


def test_a_spot_quota_does_not_close_the_region_at_full_price() -> None:
    full = refused("us-central1-a", "QUOTA_EXCEEDED", message="Quota 'PREEMPTIBLE_NVIDIA_L4_GPUS'")
    asked = settings(zones=("us-central1-a",), allow_on_demand=True)
    assert next_place(asked, [full], 0.0) == Try(place=Place(zone="us-central1-a", spot=False))


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (
            "QUOTA_EXCEEDED",
            "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.",
            "ask for GPUS_ALL_REGIONS of at least 1 at https://console.cloud.google.com/"
            "iam-admin/quotas?project=my-project",
        ),
        (
            "QUOTA_EXCEEDED",
            "Quota 'CPUS_ALL_REGIONS' exceeded.  Limit: 12.0 globally.",
            "ask for CPUS_ALL_REGIONS of at least 16 at https://console.cloud.google.com/",
        ),
        ("forbidden", "Required 'compute.instances.create'", "roles/compute.instanceAdmin.v1"),
        ("accessNotConfigured", "not used before", "gcloud services enable compute.googleapis.com"),
        ("VPC_NOT_FOUND", "no default network", "compute.gce.access.network"),
        ("invalid", "Requested disk size cannot be smaller than the image", "boot.disk_gb"),
    ],
)
def test_what_holds_everywhere_stops_with_what_to_ask_for(
    code: str, message: str, advice: str
) -> None:
    decision = next_place(settings(), [refused("us-east1-b", code, message=message)], 0.0)
    assert isinstance(decision, GiveUp)
    assert advice in decision.reason
    assert "\n" not in decision.reason


def test_full_quotas_everywhere_stop_with_their_names_and_regions() -> None:
    text = "Quota 'PREEMPTIBLE_NVIDIA_L4_GPUS' exceeded.  Limit: 0.0 in region {}."
    failures = [
        refused(zone, "QUOTA_EXCEEDED", message=text.format(region_of(zone)))
        for zone in ("us-central1-a", "us-east1-b", "europe-west4-a")
    ]
    decision = next_place(settings(), failures, 0.0)
    assert isinstance(decision, GiveUp)
    wanted = "PREEMPTIBLE_NVIDIA_L4_GPUS of at least 1 in us-central1 or us-east1 or europe-west4"
    assert wanted in decision.reason


def test_a_quota_on_cpus_is_to_grow_by_those_of_a_machine() -> None:
    one = settings(zones=("us-central1-a",), machine_type="g2-standard-8")
    message = "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1."
    decision = next_place(one, [refused("us-central1-a", "QUOTA_EXCEEDED", message=message)], 0.0)
    assert isinstance(decision, GiveUp)
    assert "ask for CPUS of at least 32 in us-central1 at" in decision.reason


def test_a_machine_names_the_quota_it_draws_on() -> None:
    assert gpu_quota("g2-standard-4", spot=True) == "PREEMPTIBLE_NVIDIA_L4_GPUS"
    assert gpu_quota("a2-ultragpu-1g", spot=False) == "NVIDIA_A100_80GB_GPUS"
    assert gpu_quota("e2-small", spot=False) is None


CODES = st.sampled_from(
    [STOCKOUT, "QUOTA_EXCEEDED", "UNSUPPORTED_OPERATION", "PREEMPTED", "forbidden", "UNHEARD_OF"]
)


@given(
    st.lists(CODES, min_size=1, max_size=60),
    st.integers(1, 4),
    st.sampled_from([(True, False), (True, True), (False, False)]),
    st.floats(0.0, 1000.0),
    st.lists(st.sampled_from(ZONES), max_size=2),
)
def test_the_search_ends_and_never_repeats_a_blocked_place(
    codes: list[str], tries: int, price: tuple[bool, bool], rest_s: float, hints: list[str]
) -> None:
    spot, full = price
    asked = settings(spot=spot, allow_on_demand=full, tries_per_zone=tries, retry_after_s=rest_s)
    failures: list[Failure] = []
    now_s = 0.0
    for turn in range(10_000):
        decision = next_place(asked, failures, now_s)
        if isinstance(decision, GiveUp):
            assert decision.reason
            assert "\n" not in decision.reason
            break
        assert decision.wait_s >= 0.0
        now_s += decision.wait_s
        check_place(decision.place, failures, asked, now_s)
        code = codes[turn % len(codes)]
        zone = decision.place.zone
        failures.append(
            refused(zone, code, at_s=now_s, spot=decision.place.spot, zones=tuple(hints))
        )
        now_s += 1.0
    else:
        pytest.fail("the search went on for ever")
    counts = Counter(failure.place for failure in failures)
    assert all(count <= tries for count in counts.values())
    assert len(failures) <= len(ZONES) * tries * (2 if full else 1)


def check_place(place: Place, failures: list[Failure], asked: GceSettings, now_s: float) -> None:
    assert place.zone in asked.zones
    assert place.spot or not asked.spot or asked.allow_on_demand
    own = [failure for failure in failures if failure.place == place]
    if own:
        assert now_s >= own[-1].at_s + asked.retry_after_s * 2 ** (len(own) - 1) - 1e-6
    for failure in failures:
        assert failure.scope != "project"
        if failure.scope == "region" and failure.place.spot == place.spot:
            assert region_of(failure.place.zone) != region_of(place.zone)
