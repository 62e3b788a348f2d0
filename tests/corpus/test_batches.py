"""A batch follows from seed, stream and step; an epoch draws each block once."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.corpus import batch, batch_bytes, fixed_batches, tokens_needed
from symbio_core.corpus.batches import _starts, blocks_per_epoch
from symbio_core.errors import CorpusError

shapes = st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(2, 300)).filter(
    lambda shape: shape[2] > shape[0]
)


def draw(n: int, context: int, step: int, size: int, **names: object) -> tuple:  # type: ignore[type-arg]
    tokens = np.arange(n, dtype=np.uint16)
    named = {"seed": 5, "stream": "line", **names}
    return batch(tokens, step=step, batch_size=size, context=context, **named)  # type: ignore[arg-type]


@given(shapes, st.integers(0, 1000))
def test_a_batch_can_be_asked_for_again_and_targets_follow_inputs(
    shape: tuple[int, int, int], step: int
) -> None:
    context, size, n = shape
    x, y = draw(n, context, step, size)
    _starts.cache_clear()
    again, _ = draw(n, context, step, size)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(y, x + 1)
    assert x.shape == y.shape == (size, context)
    assert x.dtype == y.dtype == np.int64
    np.testing.assert_array_equal(np.diff(x, axis=1), 1)


@given(shapes, st.integers(0, 3))
def test_an_epoch_draws_each_block_once(shape: tuple[int, int, int], epoch: int) -> None:
    context, _, n = shape
    n_blocks = blocks_per_epoch(n, context)
    targets = Counter()  # type: ignore[var-annotated]
    for place in range(n_blocks):
        targets.update(draw(n, context, epoch * n_blocks + place, 1)[1].ravel().tolist())
    assert set(targets.values()) == {1}
    assert len(targets) == n_blocks * context
    assert len(targets) > n - 1 - 2 * context


@given(shapes, st.integers(0, 40))
def test_batches_of_any_size_read_the_same_sequence(shape: tuple[int, int, int], step: int) -> None:
    context, size, n = shape
    together = draw(n, context, step, size)[0]
    alone = [draw(n, context, step * size + place, 1)[0] for place in range(size)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_epochs_streams_and_seeds_differ_in_order_and_phase() -> None:
    n, context = 4001, 8
    first = draw(n, context, 0, 100)[0]
    for other in (
        draw(n, context, 0, 100, seed=6)[0],
        draw(n, context, 0, 100, stream="other")[0],
        draw(n, context, blocks_per_epoch(n, context), 100)[0],
    ):
        assert not np.array_equal(first, other)
    phases = {
        int(draw(n, context, e * blocks_per_epoch(n, context), 1)[0][0, 0]) % context
        for e in range(40)
    }
    assert len(phases) > 5


def test_a_stream_without_a_block_is_refused() -> None:
    with pytest.raises(
        CorpusError, match=r"stream has 8 tokens; one block of 8 tokens need 9. Give"
    ):
        draw(8, 8, 0, 1)


@given(shapes, st.integers(1, 6))
def test_fixed_batches_never_overlap_and_span_the_split(
    shape: tuple[int, int, int], n_batches: int
) -> None:
    context, size, n = shape
    tokens = np.arange(n, dtype=np.uint16)
    need = tokens_needed(n_batches * size, context)
    if n < need:
        with pytest.raises(CorpusError, match=f"confirm split has {n} tokens; .* need {need}. "):
            fixed_batches(tokens, n_batches, size, context, 0, name="confirm")
        return
    batches = fixed_batches(tokens, n_batches, size, context, 0)
    targets = np.concatenate([y.ravel() for _, y in batches])
    assert len(batches) == n_batches
    assert len(set(targets.tolist())) == n_batches * size * context
    n_blocks, spread = (n - 1) // context, n_batches * size
    gaps = np.diff(sorted(x[0] // context for batch_x, _ in batches for x in batch_x))
    assert all(n_blocks // spread <= gap <= -(-n_blocks // spread) for gap in gaps)


def test_fixed_batches_are_the_same_in_every_call_and_each_samples_the_whole_split() -> None:
    tokens = np.arange(10_001, dtype=np.uint16)
    one, two = (fixed_batches(tokens, 10, 10, 10, 3) for _ in range(2))
    for (x, _), (again, _) in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, again)
        assert x[:, 0].max() - x[:, 0].min() > 3000


def test_bytes_of_a_batch_are_counted_over_its_targets() -> None:
    token_bytes = np.array([8, 13, 15, 1, 2], dtype=np.int64)
    assert batch_bytes(np.array([[3, 4], [3, 0]]), token_bytes) == 12
