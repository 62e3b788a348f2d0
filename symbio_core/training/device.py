"""The machine that trains: device, arithmetic, threads, repeatability."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from symbio_core.config import ComputeSettings
from symbio_core.errors import NoDevice


@dataclass(frozen=True, slots=True)
class Device:
    """Where tensors live and in which arithmetic the forward pass runs."""

    name: str
    """`cpu` or `cuda`."""
    precision: str
    """`float32` or `bfloat16`."""
    threads: int
    cores: int

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which the forward pass runs."""
        return torch.autocast(self.name, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


def prepare_device(settings: ComputeSettings) -> Device:
    """Set torch up as ``settings`` ask and say what that came to.

    Raises:
        NoDevice: CUDA was asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise NoDevice(
            "compute.device is 'cuda' and torch sees no CUDA device; check `nvidia-smi` and that "
            "torch is a CUDA build, or use --set compute.device=cpu"
        )
    name = "cuda" if has_cuda and settings.device != "cpu" else "cpu"
    threads = settings.threads or _physical_cores()
    torch.set_num_threads(threads)
    wanted = settings.deterministic
    deterministic = name == "cpu" if wanted is None else wanted
    if deterministic and name == "cuda":
        # cuBLAS needs this before its first call to be repeatable.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    if name == "cuda":
        torch.set_float32_matmul_precision("high")
    precision = settings.precision
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16(name) else "float32"
    return Device(name=name, precision=precision, threads=threads, cores=_physical_cores())


def _physical_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_bfloat16(name: str) -> bool:
    if name == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Emulated bfloat16 is several times slower than float32, so ask for the instruction itself.
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(has.get(name) is True for name in ("avx512_bf16", "amx_bf16", "bf16"))
