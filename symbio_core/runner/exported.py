"""The exported model: load it, let it write, measure it; without the run's corpus or journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from symbio_core import corpus
from symbio_core.config import ComputeSettings, ModelSettings
from symbio_core.errors import BadInput, CheckpointDamaged, UnknownRun
from symbio_core.model import GPT, generate
from symbio_core.records import Record
from symbio_core.storage import RunStore
from symbio_core.storage.canonical import parsed_json, tensors
from symbio_core.training import Device, prepare_device

WEIGHTS = "model/model.safetensors"
CONFIG = "model/config.json"
TOKENIZER = "model/tokenizer.json"


class About(Record):
    """What ``model/config.json`` says of the exported model."""

    formula: str
    n_vocab: int = Field(ge=1, lt=2**31)
    """Number of ids (tokens)."""
    model: ModelSettings
    format: Literal["chat", "plain"]
    checkpoint: str
    """The checkpoint that it was exported from."""
    val_bpb: float
    """Its validation loss (bits a byte)."""
    symbio: str
    """Version that wrote it."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model ready to write, with its tokenizer."""

    model: GPT
    tokenizer: corpus.Tokenizer
    about: About
    device: Device

    def write(
        self, prompt: str, *, temperature: float, tokens: int, count: int, seed: int
    ) -> list[str]:
        """Return ``count`` continuations of ``prompt``."""
        text = corpus.as_prompt(prompt, self.about.format) if prompt else ""
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
        about = About.model_validate(parsed_json(store.read_file(CONFIG)))
        tokenizer = corpus.tokenizer_from_json(store.read_file(TOKENIZER).decode())
        if tokenizer.n_vocab != about.n_vocab:
            raise ValueError(f"its tokenizer has {tokenizer.n_vocab} ids, not {about.n_vocab}")
        model = _filled(about, tensors(store.read_file(WEIGHTS)))
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, BadInput) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointDamaged(
            f"the exported model of run '{store.run_id}' is damaged ({why}); "
            f"write it anew by `symbio fsck {store.run_id} --repair`"
        ) from error
    return Exported(model.to(device.name).eval(), tokenizer, about, device)


def _filled(about: About, arrays: Mapping[str, npt.NDArray[np.generic]]) -> GPT:
    with torch.device("meta"):  # Its shapes alone: what is declared may fit no memory.
        shapes = GPT(about.model, about.n_vocab, about.formula, seed=0)
    for name, parameter in shapes.named_parameters():
        if arrays[name].shape != tuple(parameter.shape):
            raise ValueError(f"{name} has the shape {arrays[name].shape}")
    model = GPT(about.model, about.n_vocab, about.formula, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[name]))
    return model
