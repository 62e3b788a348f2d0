"""A GPT with RoPE, RMSNorm, QK-norm and an FFN whose activation is an expression.

Letters of shapes: B sequences · T positions · S cached positions · D width · F FFN width ·
H heads · K head width · V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symbio_core.config import ModelSettings
from symbio_core.model.activation import Activation

ROPE_BASE = 10_000.0
TABLES_KEPT = 8
"""Tables of rotations remembered; training needs one."""


@dataclass
class Cache:
    """Keys and values of the positions read so far, one pair a block; shapes [B, H, S, K]."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    read: int = 0
    """Positions read since the start, also those that have left the window."""

    def extend(
        self, block: int, k_BHTK: Tensor, v_BHTK: Tensor, window: int
    ) -> tuple[Tensor, Tensor]:
        """Append a block's new keys and values, drop what left the window, return what is there."""
        if block == len(self.keys):
            self.keys.append(k_BHTK)
            self.values.append(v_BHTK)
        else:
            self.keys[block] = torch.cat([self.keys[block], k_BHTK], dim=2)[:, :, -window:]
            self.values[block] = torch.cat([self.values[block], v_BHTK], dim=2)[:, :, -window:]
        return self.keys[block], self.values[block]


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Turn pairs of channels by their position's angle.

    Source: Su et al. (2021), RoFormer, arXiv 2104.09864, eq. 34, in the half-split layout.
    """
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat([first * cos_TK - second * sin_TK, first * sin_TK + second * cos_TK], dim=-1)


def norm(x: Tensor) -> Tensor:
    """RMSNorm without a gain (Zhang & Sennrich, 2019, arXiv 1910.07467)."""
    return F.rms_norm(x, (x.size(-1),))


class Attention(nn.Module):
    """Causal self-attention with normalised queries and keys (Henry et al., 2020)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.n_head = settings.n_head
        self.window = settings.context
        width = settings.n_embd
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x_BTD: Tensor,
        cos_TK: Tensor,
        sin_TK: Tensor,
        block: int,
        cache: Cache | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Mix positions; with a cache, ``mask`` [B, 1, T, S] says which keys each query may see."""
        B, T, D = x_BTD.shape
        qkv = self.query_key_value(x_BTD).view(B, T, 3, self.n_head, D // self.n_head)
        if x_BTD.device.type == "cpu":
            # Measured: on a CPU attention is four times slower in bfloat16 than in float32.
            with torch.autocast("cpu", enabled=False):
                y_BTD = self._mix(qkv.float(), cos_TK, sin_TK, block, cache, mask)
        else:
            y_BTD = self._mix(qkv, cos_TK, sin_TK, block, cache, mask)
        return self.out(y_BTD)  # type: ignore[no-any-return]

    def _mix(
        self,
        qkv: Tensor,
        cos_TK: Tensor,
        sin_TK: Tensor,
        block: int,
        cache: Cache | None,
        mask: Tensor | None,
    ) -> Tensor:
        B, T, _, H, K = qkv.shape
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4)
        q_BHTK = rotate(norm(q_BHTK), cos_TK, sin_TK)
        k_BHTK = rotate(norm(k_BHTK), cos_TK, sin_TK)
        if cache is not None:
            k_BHTK, v_BHTK = cache.extend(block, k_BHTK, v_BHTK, self.window)
        y_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=mask, is_causal=mask is None
        )
        return y_BHTK.transpose(1, 2).reshape(B, T, H * K)


class FeedForward(nn.Module):
    """Plain: down(f(up x)); gated: down(f(gate x) · up x) (Shazeer, 2020, arXiv 2002.05202)."""

    def __init__(self, settings: ModelSettings, formula: str) -> None:
        super().__init__()
        width = round(settings.ffn_ratio * settings.n_embd)
        if settings.ffn == "gated":
            # Three matrices of 2/3 the width hold as many parameters as two of the full width.
            width = max(8, round(width * 2 / 3 / 8) * 8)
            self.gate = nn.Linear(settings.n_embd, width, bias=False)
        self.up = nn.Linear(settings.n_embd, width, bias=False)
        self.down = nn.Linear(width, settings.n_embd, bias=False)
        self.is_gated = settings.ffn == "gated"
        self.activation = Activation(formula, learned=settings.coefficients == "learned")

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Transform each position by itself."""
        if self.is_gated:
            hidden_BTF = self.activation(self.gate(x_BTD)) * self.up(x_BTD)
        else:
            hidden_BTF = self.activation(self.up(x_BTD))
        return self.down(hidden_BTF)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then FFN, each reading the normalised stream and adding to it."""

    def __init__(self, settings: ModelSettings, formula: str) -> None:
        super().__init__()
        self.attention = Attention(settings)
        self.ffn = FeedForward(settings, formula)

    def forward(
        self,
        x_BTD: Tensor,
        cos_TK: Tensor,
        sin_TK: Tensor,
        block: int,
        cache: Cache | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Return the stream after this block."""
        x_BTD = x_BTD + self.attention(norm(x_BTD), cos_TK, sin_TK, block, cache, mask)
        return x_BTD + self.ffn(norm(x_BTD))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """The language model; ``formula`` names the activation of its FFNs.

    Initial weights depend on ``seed`` alone, not on the formula, so contenders of different
    functions can start from equal weights.
    """

    def __init__(self, settings: ModelSettings, n_vocab: int, formula: str, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.formula = Activation(formula).formula
        """The activation's name."""
        self.embedding = nn.Embedding(n_vocab, settings.n_embd)
        self.blocks = nn.ModuleList(Block(settings, formula) for _ in range(settings.n_layer))
        self.head = nn.Linear(settings.n_embd, n_vocab, bias=False)
        self._tables: dict[Any, tuple[Tensor, Tensor]] = {}
        self._initialise(seed)
        if settings.tie_embeddings:
            self.head.weight = self.embedding.weight

    @property
    def activations(self) -> list[Activation]:
        """The functions of all blocks, first to last."""
        return [module for module in self.modules() if isinstance(module, Activation)]

    def _initialise(self, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.embedding.weight, std=0.5, generator=rng)
        nn.init.normal_(self.head.weight, std=0.02, generator=rng)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.zeros_(weight)  # each block begins as the identity
            elif ".activation." not in name:
                nn.init.normal_(weight, std=weight.size(1) ** -0.5, generator=rng)

    def forward(
        self, ids_BT: Tensor, cache: Cache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Return logits [B, T, V] in float32.

        Without a cache ``ids_BT`` (int64, T at most the context) is read causally from the start.
        With one, ``ids_BT`` are the next positions and ``mask`` [B, 1, T, S] (bool) says which of
        the S cached and new positions each may see.
        """
        start = 0 if cache is None else cache.read
        cos_TK, sin_TK = self._angles(start, ids_BT.size(1), ids_BT.device)
        x_BTD = norm(self.embedding(ids_BT))
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, cos_TK, sin_TK, index, cache, mask)
        if cache is not None:
            cache.read += ids_BT.size(1)
        return self.head(norm(x_BTD)).float()  # type: ignore[no-any-return]

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy (nats a token), a scalar."""
        logits_BTV = self(ids_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

    def _angles(self, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # On a GPU under autocast the stream is bfloat16; angles in the same type keep it so.
        lower = device.type != "cpu" and torch.is_autocast_enabled(device.type)
        kind = torch.bfloat16 if lower else torch.float32
        key = (start, length, device, kind)
        if key not in self._tables:
            if len(self._tables) >= TABLES_KEPT:
                self._tables.clear()
            half = self.settings.n_embd // self.settings.n_head // 2
            frequency_K = ROPE_BASE ** (-torch.arange(half, device=device) / half)
            position_T = torch.arange(start, start + length, device=device)
            angle_TK = position_T[:, None] * frequency_K[None, :]
            self._tables[key] = (angle_TK.cos().to(kind), angle_TK.sin().to(kind))
        return self._tables[key]
