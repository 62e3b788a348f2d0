"""Which place to try next, given what was refused where. Pure."""

from __future__ import annotations

from typing import Literal

Scope = Literal["zone", "region", "project"]
PROJECT_CODES = (
    "VPC_NOT_FOUND",
    "IAM_PERMISSION_DENIED",
    "PERMISSION_DENIED",
    "PERMISSIONS_ERROR",
    "forbidden",
    "required",
    "accessNotConfigured",
    "SERVICE_DISABLED",
    "BILLING_DISABLED",
    "401",
)
QUOTA_CODES = ("QUOTA_EXCEEDED", "quotaExceeded")
GLOBAL_QUOTA = "GPUS_ALL_REGIONS"


def region_of(zone: str) -> str:
    """Return the region that a zone lies in."""
    return zone.rpartition("-")[0]


def scope_of(code: str, message: str) -> Scope:
    """Say how far a refusal holds: in this zone, in its region, or in the whole project.

    Source:
        SkyPilot, `sky/backends/cloud_vm_ray_backend.py`, `_gcp_handler`; its permission and disk
        errors block the whole cloud, which is one project here.
    """
    if GLOBAL_QUOTA in message or code in PROJECT_CODES:
        return "project"
    if "disk size" in message.lower() and "smaller" in message.lower():
        return "project"
    return "region" if code in QUOTA_CODES else "zone"
