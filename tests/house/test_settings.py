"""Every setting explains itself and refuses nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from symbio_core.config import RunConfig, Settings, changed
from symbio_core.errors import ConfigError

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
