"""The exported model: load it, let it write, measure it; without the run's corpus or journal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from symbio_core import corpus
from symbio_core.config import ComputeSettings, ModelSettings, checked
from symbio_core.errors import BadInput, CheckpointDamaged, UnknownRun
from symbio_core.model import GPT, generate
from symbio_core.storage import RunStore
from symbio_core.storage.canonical import tensors
from symbio_core.training import Device, prepare_device

WEIGHTS = "model/model.safetensors"
CONFIG = "model/config.json"
TOKENIZER = "model/tokenizer.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """A model ready to write, with its tokenizer."""

    model: GPT
    tokenizer: corpus.Tokenizer
    about: dict[str, Any]
    device: Device

    def write(
        self, prompt: str, *, temperature: float, tokens: int, count: int, seed: int
    ) -> list[str]:
        """Return ``count`` continuations of ``prompt``."""
        text = corpus.as_prompt(prompt, self.about["format"]) if prompt else ""
        ids = np.asarray(self.tokenizer.encode(text), dtype=np.int64)
        with self.device.autocast():
            answers = generate(
                self.model,
                [ids] * count,
                temperatures=[temperature] * count,
                new_tokens=tokens,
                end_id=self.tokenizer.end_id,
                seed=seed,
                names=[("sample", index) for index in range(count)],
            )
        return [self.tokenizer.decode(answer) for answer in answers]


def load_exported(store: RunStore, compute: ComputeSettings) -> Exported:
    """Load the model that a finished run exported.

    Raises:
        UnknownRun: the run has not exported a model yet.
        CheckpointDamaged: its files do not fit together.
    """
    if not store.has_file(WEIGHTS):
        raise UnknownRun(
            f"run '{store.run_id}' has no exported model yet; finish it by "
            f"`symbio resume {store.run_id}`"
        )
    device = prepare_device(compute)
    try:
        about = json.loads(store.read_file(CONFIG))
        shape = checked(ModelSettings, about["model"])
        model = GPT(shape, about["n_vocab"], about["formula"], seed=0)
        arrays = tensors(store.read_file(WEIGHTS))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if arrays[name].shape != tuple(parameter.shape):
                    raise ValueError(f"{name} has the shape {arrays[name].shape}")
                parameter.copy_(torch.from_numpy(arrays[name]))
        tokenizer = corpus.tokenizer_from_json(store.read_file(TOKENIZER).decode())
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, BadInput) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointDamaged(
            f"the exported model of run '{store.run_id}' is damaged ({why}); "
            f"write it anew by `symbio fsck {store.run_id} --repair`"
        ) from error
    return Exported(model.to(device.name).eval(), tokenizer, about, device)
