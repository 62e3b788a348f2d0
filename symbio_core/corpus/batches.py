"""Draws batches out of a token stream: a batch is a function of seed, stream and step. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symbio_core.errors import CorpusError
from symbio_core.streams import Name, generator

Tokens = NDArray[Any]
"""A token stream, shape (n,), any unsigned integer type; usually memory-mapped."""
Ids = NDArray[np.int64]
Batch = tuple[Ids, Ids]
"""Inputs and targets, both of shape (batch_size, context), int64."""


def blocks_per_epoch(n_tokens: int, context: int) -> int:
    """Return how many blocks of ``context`` targets an epoch over ``n_tokens`` tokens has."""
    return max(n_tokens - context, 1) // context or int(n_tokens > context)


@lru_cache(maxsize=16)
def _starts(seed: int, stream: Name, epoch: int, n_tokens: int, context: int) -> Ids:
    """Return where the blocks of one epoch start, in the order in which they are drawn."""
    random = generator(seed, "batches", stream, epoch)
    n_blocks = blocks_per_epoch(n_tokens, context)
    # Without the random phase, the same tokens would open a block in every epoch.
    phase = random.integers(min(context, n_tokens - n_blocks * context))
    starts: Ids = random.permutation(n_blocks) * context + phase
    starts.flags.writeable = False
    return starts


def batch(
    tokens: Tokens, *, seed: int, stream: Name, step: int, batch_size: int, context: int
) -> Batch:
    """Return the batch of one step; any step can be asked for at any time.

    An epoch draws each block of the stream once, in an order and with a phase of its own; a batch
    may span two epochs. Costs one gather; the order of an epoch is kept in memory (8 bytes a
    block).

    Args:
        tokens: token stream, shape (n,).
        seed: the run's seed.
        stream: who draws; other names give other orders.
        step: counted from 0.
        batch_size: sequences.
        context: tokens a sequence.

    Returns:
        Inputs and targets (each target is the token after its input), int64, shape
        (batch_size, context) each.

    Raises:
        CorpusError: the stream is shorter than context + 1.
    """
    n_blocks = blocks_per_epoch(len(tokens), context)
    if not n_blocks:
        raise _too_short("stream", len(tokens), context + 1, f"one block of {context}")
    first = step * batch_size
    starts = np.empty(batch_size, dtype=np.int64)
    done = 0
    while done < batch_size:
        epoch, place = divmod(first + done, n_blocks)
        drawn = _starts(seed, stream, epoch, len(tokens), context)[
            place : place + batch_size - done
        ]
        starts[done : done + len(drawn)] = drawn
        done += len(drawn)
    return _gather(tokens, starts, context)


def fixed_batches(
    tokens: Tokens,
    n_batches: int,
    batch_size: int,
    context: int,
    seed: int,
    *,
    name: str = "held-out",
) -> list[Batch]:
    """Return the batches of an evaluation: blocks that do not overlap, spread over the stream.

    They are the same in every call, so that losses can be compared batch by batch. Blocks are
    dealt to batches at random, so that each batch is a sample of the whole stream.

    Args:
        tokens: token stream of a held-out split, shape (n,).
        n_batches: batches wanted.
        batch_size: sequences a batch.
        context: tokens a sequence.
        seed: deals the blocks to the batches.
        name: what to call the split in an error.

    Raises:
        CorpusError: the split is too short for that many blocks.
    """
    wanted = n_batches * batch_size
    available = max(len(tokens) - 1, 0) // context
    if wanted > available:
        use = f"{n_batches} batches of {batch_size} × {context}"
        raise _too_short(f"{name} split", len(tokens), tokens_needed(wanted, context), use)
    places = np.arange(wanted, dtype=np.int64) * available // max(wanted, 1)
    dealt = generator(seed, "fixed batches").permutation(places) * context
    return [_gather(tokens, part, context) for part in dealt.reshape(n_batches, batch_size)]


def tokens_needed(n_blocks: int, context: int) -> int:
    """Return the shortest stream (tokens) that holds ``n_blocks`` blocks without overlap."""
    return n_blocks * context + 1


def batch_bytes(y: Tokens, token_bytes: Ids) -> int:
    """Return how many bytes of text the targets ``y`` stand for (bits per byte divides by it)."""
    return int(token_bytes[y].sum())


def _gather(tokens: Tokens, starts: Ids, context: int) -> Batch:
    blocks = tokens[starts[:, None] + np.arange(context + 1)].astype(np.int64)
    return np.ascontiguousarray(blocks[:, :-1]), np.ascontiguousarray(blocks[:, 1:])


def _too_short(what: str, found: int, needed: int, use: str) -> CorpusError:
    times = needed / max(found, 1)
    return CorpusError(
        f"the {what} has {found} tokens; {use} tokens need {needed}. Give {times:.1f} times the "
        "text, or a larger share to this split, or take a smaller context or fewer batches"
    )
