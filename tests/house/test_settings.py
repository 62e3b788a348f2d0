"""Every setting explains itself and refuses nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from symbio_core.config import RunConfig, Settings, changed, checked, describe
from symbio_core.errors import ConfigError
from symbio_core.lifecycle import check_budget
from symbio_core.profiles import PROFILES, profile

SCHEMA = RunConfig.model_json_schema()
LOWER = ("minimum", "exclusiveMinimum")


def leaves(kind: type[Settings] = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the JSON schema of every setting."""
    properties = (SCHEMA if kind is RunConfig else SCHEMA["$defs"][kind.__name__])["properties"]
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", properties[name]


def numbers_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a setting's schema that take a number."""
    if schema.get("type") in ("number", "integer"):
        yield schema
    for part in [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]:
        yield from numbers_in(part)


ALL = dict(leaves())
NUMERIC = {name: list(numbers_in(schema)) for name, schema in ALL.items()}
NUMERIC = {name: parts for name, parts in NUMERIC.items() if parts}


def test_the_walk_finds_the_settings() -> None:
    assert len(ALL) > 100
    assert "phases.cambrian.fusion.base" in NUMERIC
    assert "budget.max_seconds" in NUMERIC
    assert "gates.temperatures" in NUMERIC
    assert "budget.on_exhausted" not in NUMERIC


@pytest.mark.parametrize("name", ALL)
def test_every_setting_says_in_a_sentence_what_it_is(name: str) -> None:
    text = ALL[name].get("description", "")
    assert text.endswith("."), f"{name} has no description"
    assert len(text) >= 15


def test_every_group_says_what_it_is() -> None:
    for name, schema in SCHEMA["$defs"].items():
        assert schema.get("description", "").endswith("."), f"{name} has no description"


@pytest.mark.parametrize("name", NUMERIC)
def test_every_number_has_a_lower_bound_that_is_kept(name: str) -> None:
    value = RunConfig().model_dump()
    for part in name.split("."):
        value = value[part]
    for schema in NUMERIC[name]:
        bounds = [schema[key] for key in LOWER if key in schema]
        assert bounds, f"{name} has no lower bound"
        nonsense: Any = bounds[0] - 1
        nonsense = (nonsense,) if isinstance(value, tuple) else nonsense
        with pytest.raises(ConfigError, match=name.split(".")[-1]):
            changed(RunConfig(), {name: nonsense})


# --- what is refused is said in one line


@pytest.mark.parametrize(
    "key",
    ["nonsense", "budget.step", "budget.steps.more", "phases.jurassic.share", "", ".", "data."],
)
def test_an_unknown_key_is_refused_with_the_keys_there_are(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        changed(RunConfig(), {key: 1})
    text = str(error.value)
    assert text.startswith(f"setting '{key}' is unknown; known at that place: ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("budget.steps", 0, "greater than or equal to 1"),
        ("budget.steps", "many", "valid integer"),
        ("budget.steps", 10.5, "valid integer"),
        ("budget.max_seconds", float("nan"), "greater than 0"),
        ("optimiser.ema_decay", 1.0, "less than 1"),
        ("phases.cambrian.fusion.max", 1.5, "less than or equal to 1"),
        ("phases.cambrian.fusion.base", 0.9, "base 0.9 is above max 0.012"),
        ("budget.on_exhausted", "shrug", "'continue', 'ask' or 'stop'"),
        ("model.n_embd", 130, "take n_embd=128"),
        ("data.confirm_frac", 0.49, "keep it at 0.5 or less"),
        ("gates.temperatures", [], "at least 1 item"),
        ("seed", -1, "greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_its_bound(
    key: str, value: Any, bound: str
) -> None:
    with pytest.raises(ConfigError) as error:
        changed(RunConfig(), {key: value})
    text = str(error.value)
    # A rule between two settings is told at their group.
    assert text.startswith((f"setting '{key}", f"setting '{key.rpartition('.')[0]}'"))
    assert bound in text
    assert "\n" not in text


def test_an_unknown_group_in_a_stored_configuration_is_refused_too() -> None:
    data = RunConfig().model_dump()
    with pytest.raises(ConfigError, match=r"setting 'data\.colour': Extra inputs"):
        checked(RunConfig, data | {"data": {**data["data"], "colour": "blue"}})


def test_no_change_leaves_all_as_it_was() -> None:
    before = RunConfig()
    after = changed(before, {"budget.steps": 999})
    assert before == RunConfig()
    assert changed(after, {"budget.steps": before.budget.steps}) == before


# --- profiles


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_a_whole_configuration_that_pays_for_itself(name: str) -> None:
    config = profile(name)
    assert config.profile == name
    assert checked(RunConfig, config.model_dump(mode="json")) == config
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    check_budget(config)


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="profile 'huge' is unknown; take one of smoke, demo"):
        profile("huge")


@pytest.mark.parametrize("name", PROFILES)
def test_every_setting_of_a_profile_is_listed_once_with_its_value(name: str) -> None:
    rows = describe(profile(name))
    assert [row.key for row in rows] == list(ALL)
    values = {row.key: row.value for row in rows}
    assert values["profile"] == name
    assert values["budget.steps"] == str(profile(name).budget.steps)
    assert all(row.help.endswith(".") and "`" not in row.help for row in rows)


def test_every_number_is_listed_with_the_bounds_it_has() -> None:
    bounds = {row.key: row.bounds for row in describe(RunConfig())}
    assert [key for key in NUMERIC if not bounds[key]] == []
    assert bounds["budget.steps"] == "≥ 1"
    assert bounds["search.population"] == "≥ 2, ≤ 64"
    assert bounds["optimiser.ema_decay"] == "≥ 0.0, < 1.0"
    assert bounds["compute.device"] == "auto | cpu | cuda"
