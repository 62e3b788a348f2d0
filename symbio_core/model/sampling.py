"""Batched sampling with a key-value cache and the model's own activation.

Letters of shapes: B sequences · T positions · S cached positions · V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from symbio_core.model.gpt import GPT, Cache
from symbio_core.streams import Name, generator


@torch.inference_mode()
def generate(
    model: GPT,
    prompts: Sequence[npt.NDArray[np.int64]],
    *,
    temperatures: Sequence[float],
    new_tokens: int,
    end_id: int,
    seed: int,
    names: Sequence[tuple[Name, ...]],
) -> list[npt.NDArray[np.int64]]:
    """Continue every prompt at its temperature, all in one batch.

    Each row draws from its own stream, so what a prompt is answered with does not depend on the
    other prompts of the batch. Rows are padded on the left and pads are never attended to.

    Args:
        model: the model; its context is the widest window attended to.
        prompts: token ids, one array of shape (length,) a row; longer than the context keeps
            the last tokens. An empty prompt starts from ``end_id``.
        temperatures: one a row; 0 takes the likeliest token.
        new_tokens: longest answer (tokens).
        end_id: token that ends an answer; it is not part of the answer returned.
        seed: the run's seed.
        names: name of each row's random stream.

    Returns:
        The new tokens of each row, shape (at most new_tokens,). An answer that is shorter than
        new_tokens ended by itself.
    """
    device = model.embedding.weight.device
    context = model.settings.context
    rows = [(p if len(p) else np.array([end_id]))[-context:] for p in prompts]
    longest = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), longest), end_id)
    real_BS = torch.zeros((len(rows), longest), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids_BT[index, longest - len(row) :] = torch.from_numpy(np.asarray(row, dtype=np.int64))
        real_BS[index, longest - len(row) :] = True
    ids_BT, real_BS = ids_BT.to(device), real_BS.to(device)
    draws = np.stack([generator(seed, "sampling", *name).random(new_tokens) for name in names])
    temperature_B1 = torch.tensor(temperatures, device=device, dtype=torch.float32)[:, None]
    cache = Cache()
    causal = torch.ones((longest, longest), dtype=torch.bool, device=device).tril()
    # A pad may see itself: a row of all-masked keys would be NaN. Nothing ever sees the pad.
    self_only = torch.eye(longest, dtype=torch.bool, device=device)
    mask = ((causal & real_BS[:, None, :]) | self_only)[:, None]
    logits_BV = model(ids_BT, cache, mask)[:, -1]
    answers = np.empty((len(rows), new_tokens), dtype=np.int64)
    running = np.ones(len(rows), dtype=bool)
    ends = np.full(len(rows), new_tokens)
    for step in range(new_tokens):
        next_B = _choose(logits_BV, temperature_B1, torch.from_numpy(draws[:, step]).to(device))
        answers[:, step] = next_B.cpu().numpy()
        ended = running & (answers[:, step] == end_id)
        ends[ended] = step
        running &= ~ended
        if not running.any() or step == new_tokens - 1:
            break
        real_BS = torch.cat([real_BS, torch.ones_like(real_BS[:, :1])], dim=1)
        mask = real_BS[:, None, None, -context:]
        logits_BV = model(next_B[:, None], cache, mask)[:, -1]
    return [answers[index, : ends[index]] for index in range(len(rows))]


def _choose(logits_BV: Tensor, temperature_B1: Tensor, uniform_B: Tensor) -> Tensor:
    # Inverse-CDF sampling: one uniform number a row and position decides.
    greedy_B = logits_BV.argmax(dim=-1)
    scaled = logits_BV / temperature_B1.clamp_min(1e-6)
    cumulative_BV = scaled.softmax(dim=-1).double().cumsum(dim=-1)
    target_B1 = (uniform_B * cumulative_BV[:, -1])[:, None]
    drawn_B = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]
    drawn_B = drawn_B.clamp_max(logits_BV.size(-1) - 1)
    return torch.where(temperature_B1[:, 0] > 0, drawn_B, greedy_B)
