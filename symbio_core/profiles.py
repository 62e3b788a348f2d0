"""Presets to start from: smoke, demo, l4, h100; each a function that returns a full RunConfig."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from symbio_core.config import RunConfig, checked
from symbio_core.errors import ConfigError


def smoke() -> RunConfig:
    """Return the smallest whole life: seconds on a laptop, for tests and a first look."""
    return _config(
        profile="smoke",
        data={"max_bytes": 300_000, "vocab_size": 384},
        model={"n_layer": 2, "n_head": 2, "n_embd": 32, "context": 32},
        optimiser={"batch_size": 8, "warmup_steps": 10},
        phases={
            "primordial": {"population": 3, "rung_steps": 3},
            "cambrian": {"population": 4, "rung_steps": 3},
            "oxidation": {"population": 3, "rung_steps": 3},
        },
        search={"rungs": 2, "eval_batches": 6},
        confirm={"steps_frac": 0.2, "seeds": 2, "eval_batches": 8, "warm_steps": 6},
        gates={"n_prompts": 6, "new_tokens": 24, "eval_every": 20, "eval_batches": 8},
        budget={"steps": 700, "max_seconds": 300.0},
        compute={"threads": 1},
        storage={"save_every": 50},
    )


def demo() -> RunConfig:
    """Return the main job of the README: a few minutes on two CPU cores."""
    return _config(
        profile="demo",
        model={"n_layer": 4, "n_head": 4, "n_embd": 128, "context": 64},
        optimiser={"batch_size": 8},
        phases={
            "primordial": {"population": 4, "rung_steps": 60},
            "cambrian": {"population": 3, "rung_steps": 12},
            "oxidation": {"population": 2, "rung_steps": 12},
        },
        search={"rungs": 1, "patience": 1},
        confirm={"steps_frac": 0.06, "scale": 0.5, "warm_steps": 20},
        without=("fusion", "kuramoto"),
        gates={"eval_every": 200},
        budget={"steps": 4500, "max_seconds": 270.0},
        compute={"threads": 1},
    )


def l4() -> RunConfig:
    """Return the seed document's model and budget, sized for one NVIDIA L4."""
    return _config(
        profile="l4",
        data={"vocab_size": 8192},
        model={"n_layer": 8, "n_head": 8, "n_embd": 384, "context": 512},
        optimiser={"name": "muon", "batch_size": 20, "warmup_steps": 200},
        phases={"primordial": {"rung_steps": 200}},
        confirm={"eval_batches": 48, "warm_steps": 200},
        search={"eval_batches": 24},
        gates={"new_tokens": 128, "eval_every": 500, "eval_batches": 48},
        budget={"steps": 50_000},
        storage={"save_every": 1000},
    )


def h100() -> RunConfig:
    """Return a larger model for one NVIDIA H100."""
    return _config(
        profile="h100",
        data={"vocab_size": 16_384},
        model={"n_layer": 12, "n_head": 12, "n_embd": 768, "context": 1024},
        optimiser={"name": "muon", "batch_size": 32, "warmup_steps": 400},
        phases={"primordial": {"rung_steps": 200}},
        confirm={"eval_batches": 48, "warm_steps": 300},
        search={"eval_batches": 24},
        gates={"new_tokens": 192, "eval_every": 500, "eval_batches": 48},
        budget={"steps": 100_000},
        storage={"save_every": 1000},
    )


PROFILES: dict[str, Callable[[], RunConfig]] = {
    "smoke": smoke,
    "demo": demo,
    "l4": l4,
    "h100": h100,
}


def profile(name: str) -> RunConfig:
    """Return the preset called ``name``.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    if name not in PROFILES:
        raise ConfigError(f"profile '{name}' is unknown; take one of {', '.join(PROFILES)}")
    return PROFILES[name]()


def _config(**groups: Any) -> RunConfig:
    merged = _merge(RunConfig().model_dump(), groups)
    return checked(RunConfig, merged)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
