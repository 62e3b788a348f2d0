"""The one form in which data become bytes: equal content, equal bytes; no code runs on reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

Arrays = Mapping[str, npt.NDArray[np.generic]]


def json_bytes(content: Any) -> bytes:
    """Return content as compact JSON with sorted keys, in UTF-8 and on one line."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return utf8(text)


def pretty_bytes(content: Any) -> bytes:
    """Return content as JSON that people read."""
    return utf8(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def utf8(text: str) -> bytes:
    """Return JSON text in UTF-8; half a surrogate pair, which UTF-8 lacks, becomes its escape."""
    return text.encode("utf-8", errors="backslashreplace")


def parsed_json(data: bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: it is not JSON, or nested beyond all measure.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def tensor_bytes(arrays: Arrays) -> bytes:
    """Return arrays (any shape, also none; little endian afterwards) as a safetensors file."""
    whole = {name: _contiguous(arrays[name]) for name in sorted(arrays)}
    return save(whole)


def tensors(data: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of a safetensors file.

    Raises:
        ValueError: it is not one, its header promises what is not there, or a dtype is not numpy's.
    """
    try:
        return dict(load(data))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    except KeyError as error:
        raise ValueError(f"dtype {error} is not one of numpy's") from error


def is_arrays(content: Any) -> bool:
    """Say whether content is a mapping of numpy arrays, at least one."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(value, np.ndarray) for value in content.values())
    )


def _contiguous(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return np.ascontiguousarray(array).reshape(array.shape)  # numpy makes () into (1,)
