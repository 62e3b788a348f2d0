"""Settings that a run may go on under though it began with others, and the record of that. Pure.

What a run learns, and what its journal leads to, follows from the settings it began with. Where its
machines come from and what they may cost does not: that may change, and the journal says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from symbio_core.config import RunConfig, changed, describe
from symbio_core.errors import ConfigError

EVENT = "changed"
"""Name of the journal's line about it."""
OPEN = ("budget.max_usd", "compute.elsewhere.", "compute.gce.")
"""Settings that may change, and groups of them."""
SHUT = ("compute.gce.project", "compute.gce.label", "compute.gce.endpoint")
"""But not these: by them the machines that the run has are found again."""


def differences(config: RunConfig, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a change of settings changes: each setting's dotted key, `from` what, `to` what.

    Args:
        config: what the run goes by now.
        asked: new values by dotted key.

    Raises:
        ConfigError: a setting has to stay as it is, is unknown, or its new value will not do.
    """
    before, after = _values(config), _values(changed(config, dict(asked)))
    for key in after:
        if before[key] != after[key] and (key in SHUT or not key.startswith(OPEN)):
            raise ConfigError(
                f"setting '{key}' is {before[key]!r} since the run began and has to stay so; what "
                "may change is budget.max_usd, compute.elsewhere.* and compute.gce.* but for "
                "project, label and endpoint; for anything else begin another run"
            )
    return {
        key: {"from": before[key], "to": after[key]} for key in after if before[key] != after[key]
    }


def as_changed(config: RunConfig, events: Sequence[Mapping[str, Any]]) -> RunConfig:
    """Return the settings that a run goes by after all that its journal says was changed."""
    to = {key: one["to"] for event in _ours(events) for key, one in event["changes"].items()}
    return changed(config, to) if to else config


def told(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each change, oldest first."""
    return [
        f"changed on {str(event['at'])[:10]}: {key} from {one['from']} to {one['to']}"
        for event in _ours(events)
        for key, one in event["changes"].items()
    ]


def _ours(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event["event"] == EVENT]


def _values(config: RunConfig) -> dict[str, Any]:
    """Return every setting by its dotted key, as the journal writes it."""
    found = {}
    whole = config.model_dump(mode="json")
    for row in describe(config):
        value: Any = whole
        for part in row.key.split("."):
            value = value[part]
        found[row.key] = value
    return found
