"""Which of two checkpoints is the better one. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce

import numpy as np
from scipy.special import stdtrit

from symbio_core.records import CheckpointRef, Interval


def better(best: CheckpointRef | None, other: CheckpointRef | None) -> CheckpointRef | None:
    """Return which of two is the best so far; the first where they are level.

    Surely better text wins; where quality is level or one of them was not judged, the lower
    validation loss does. A checkpoint without a finite loss is never the best, and a judgement
    that is not finite counts as none.
    """
    if other is None or not math.isfinite(other.val_bpb):
        return best
    if best is None or not math.isfinite(best.val_bpb):
        return other
    sure = _surely_better_text(other.quality, best.quality)
    if sure is not None:
        return other if sure else best
    return other if other.val_bpb < best.val_bpb else best


def better_text(best: CheckpointRef | None, other: CheckpointRef | None) -> CheckpointRef | None:
    """Return which of two writes better, the first of equals.

    A regression is measured against its quality, so that never falls: a lower loss of level text
    does not count here, or many small falls would add up unseen. What was not judged, or has no
    finite loss, is never the one.
    """
    if other is None or other.quality is None or not _is_finite(other.quality):
        return best
    if not math.isfinite(other.val_bpb):
        return best
    if best is None or best.quality is None:
        return other
    return other if other.quality.value > best.quality.value else best


def writes_worse(ref: CheckpointRef, than: CheckpointRef | None) -> bool:
    """Say whether the text of ``ref`` is surely worse than another's."""
    return than is not None and _surely_better_text(ref.quality, than.quality) is False


def best_of(refs: Iterable[CheckpointRef | None]) -> CheckpointRef | None:
    """Fold `better` over checkpoints; None if none of them has a finite loss."""
    start: CheckpointRef | None = None
    return reduce(better, refs, start)


def lowest_of(refs: Iterable[CheckpointRef | None]) -> CheckpointRef | None:
    """Return the checkpoint of lowest finite validation loss, the first of equals; None of none."""
    finite = [ref for ref in refs if ref is not None and math.isfinite(ref.val_bpb)]
    return min(finite, key=lambda ref: ref.val_bpb, default=None)


def surely_better(
    refs: Iterable[CheckpointRef], line: CheckpointRef, *, confidence: float
) -> CheckpointRef | None:
    """Return the lowest of ``refs`` whose loss is below the line's with confidence; None of none.

    Losses are compared batch by batch on the same fixed batches (nats a token). A checkpoint that
    was measured on other batches, or is not finite somewhere, cannot be compared and stays out.

    Args:
        refs: checkpoints that might take over.
        line: where the run would go on.
        confidence: confidence of the two-sided interval of the mean difference (0..1).

    Source:
        Student (1908), The probable error of a mean: the paired t interval.
    """
    sure = [ref for ref in refs if _is_below(ref.val_nats, line.val_nats, confidence)]
    return min(sure, key=lambda ref: float(np.mean(ref.val_nats)), default=None)


def _is_below(nats: tuple[float, ...], line: tuple[float, ...], confidence: float) -> bool:
    if len(nats) != len(line) or len(nats) < 2 or not np.isfinite([*nats, *line]).all():
        return False
    difference = np.subtract(nats, line)
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    reach = float(stdtrit(len(difference) - 1, 0.5 + confidence / 2))
    return float(difference.mean()) + reach * error < 0.0


def _surely_better_text(new: Interval | None, old: Interval | None) -> bool | None:
    if new is None or old is None or not all(map(_is_finite, (new, old))):
        return None
    if new.low > old.high:
        return True
    return False if new.high < old.low else None


def _is_finite(interval: Interval) -> bool:
    return math.isfinite(interval.low) and math.isfinite(interval.high)
