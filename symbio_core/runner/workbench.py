"""What measuring needs and no journal holds: device, tokens, fixed batches, human reference."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from symbio_core import corpus
from symbio_core.activations import parse, relative_cost
from symbio_core.config import STEP_WORK, RunConfig
from symbio_core.gates import Reference
from symbio_core.model import GPT
from symbio_core.runner.places import prepare
from symbio_core.streams import seed_for
from symbio_core.training import (
    Batch,
    Device,
    Member,
    bits_per_byte,
    losses_per_batch,
    prepare_device,
)

REFERENCE_TEXTS = 400
"""Held-out documents that the battery's human reference is made from."""
READ_TEXTS = 20_000
"""Training documents that copies are looked for in."""


class Workbench:
    """Opened once a process for a run; everything on it follows from the configuration."""

    def __init__(self, config: RunConfig, cache: Path, tokenizer_json: str | None = None) -> None:
        self.config = config
        self.cost = 1.0
        """What a step costs here, in steps of the run's own model."""
        self.device: Device = prepare_device(config.compute)
        self.data = prepare(
            config.data,
            context=config.model.context,
            seed=config.seed,
            folder=cache,
            eval_tokens=self._tokens_of(config.gates.eval_batches),
            confirm_tokens=self._tokens_of(config.confirm.eval_batches),
            tokenizer_json=tokenizer_json,
        )
        gates, search, confirm = config.gates, config.search, config.confirm
        self.validation = self._fixed(self.data.validation, gates.eval_batches)
        self.searched = self.validation[: search.eval_batches]
        self.train_probe = self._fixed(self.data.train, gates.eval_batches)
        self.confirmed = self._fixed(self.data.confirm, confirm.eval_batches)
        self.prompts = self._prompts()
        """The battery's: the person's own, or first turns of held-out documents. Found now, so that
        a file that will not do is refused before anything is trained."""

    def reduced(self, scale: float) -> Workbench:
        """Return a bench for a model ``scale`` times as deep and wide; data and batches are shared.

        Its steps are counted by their cost: the multiply-adds of its model over the run's own.
        """
        other = copy.copy(self)
        model = self.config.model.reduced(scale)
        other.config = self.config.model_copy(update={"model": model})
        other.cost = self.config.step_cost(scale)
        return other

    def charged(self, steps: int) -> int:
        """Return what ``steps`` here come to in steps of the run's own model, rounded up."""
        return math.ceil(steps * self.cost - 1e-9)

    def function_cost(self, formula: str, other: str) -> float:
        """Return what a step with one function costs over one with another (1 = the same)."""
        model = self.config.model
        hidden = model.n_layer * round(model.ffn_ratio * model.n_embd)
        work = model.work(self.n_vocab) + STEP_WORK / self.tokens_per_step
        return relative_cost(parse(formula), parse(other), work=work, hidden=hidden)

    @property
    def n_vocab(self) -> int:
        """Entries of the vocabulary."""
        return self.data.tokenizer.n_vocab

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimiser step reads."""
        return self.config.optimiser.batch_size * self.config.model.context

    def fresh_member(self, formula: str, *name: str | int) -> Member:
        """Return a member with fresh weights from the stream called ``name``."""
        seed = seed_for(self.config.seed, "weights", *name)
        return Member(self.config, self.n_vocab, formula, self.device, seed=seed)

    def train_batches(self, *stream: str | int) -> Callable[[int], Batch]:
        """Return the function from a step of ``stream`` to its training batch."""
        name = "/".join(str(part) for part in stream)

        def batch_at(step: int) -> Batch:
            return corpus.batch(
                self.data.train,
                seed=self.config.seed,
                stream=name,
                step=step,
                batch_size=self.config.optimiser.batch_size,
                context=self.config.model.context,
            )

        return batch_at

    def measure(self, model: GPT, batches: Sequence[Batch]) -> npt.NDArray[np.float64]:
        """Return the loss of each batch, shape (n_batches,), nats a token."""
        return losses_per_batch(model, batches, self.device)

    def bpb(self, nats: float, batches: Sequence[Batch]) -> float:
        """Return a mean loss on ``batches`` in bits a byte."""
        n_bytes = sum(corpus.batch_bytes(y, self.data.tokenizer.token_bytes) for _, y in batches)
        return bits_per_byte(nats, sum(y.size for _, y in batches), n_bytes)

    def _prompts(self) -> tuple[str, ...]:
        if self.config.gates.prompts_file is None:
            return tuple(prompt.text for prompt in self._drawn)
        own = corpus.own_prompts(
            self.config.gates.prompts_file,
            self.data.format,
            context=self.config.model.context,
            n_tokens=lambda prompt: len(self.data.tokenizer.encode(prompt)),
        )
        return tuple(own)

    @cached_property
    def _drawn(self) -> list[corpus.Prompt]:
        longest = max(8, self.config.model.context // 2)
        n, seed = self.config.gates.n_prompts, self.config.seed
        return self.data.prompts(n, seed, max_tokens=longest)

    @cached_property
    def reference(self) -> Reference:
        """Human text of this corpus, that the model's text is measured against."""
        return Reference.from_texts(
            self.data.train_texts(READ_TEXTS, self.config.seed),
            self.data.heldout_texts(REFERENCE_TEXTS, self.config.seed),
            seed=self.config.seed,
            answers=[prompt.human for prompt in self._drawn],
        )

    def _tokens_of(self, n_batches: int) -> int:
        blocks = n_batches * self.config.optimiser.batch_size
        return corpus.tokens_needed(blocks, self.config.model.context)

    def _fixed(self, tokens: npt.NDArray[np.integer], n_batches: int) -> list[Batch]:
        return corpus.fixed_batches(
            tokens,
            n_batches,
            self.config.optimiser.batch_size,
            self.config.model.context,
            self.config.seed,
        )
