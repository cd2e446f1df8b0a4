"""KV-memory: in each layer, every head also attends to r learned keys and values.

mix_mem = mix + softmax(q K^T / sqrt(k)) V, K, V in R^{r x h x k}, a softmax of its own over the
keys of all levels, no causal mask, no position. The sum is taken before the output projection: the
paper's count of 2 r l h k leaves values of h x k numbers, and those fit nowhere else. Queries are
taken after QK-norm and before RoPE: keys have no position, so a rotated query would score them by
its own absolute position. Source: arXiv 2510.02375, app. I. V starts at zero: a no-op.
"""

import torch
from torch import Tensor

from core.anchor import truncated_normal
from core.memory.base import Attached, BlockMemory
from core.memory.products import linear


class AttachedKV(Attached):
    """Keys and values [b, h, R, k], R the sum of the widths."""

    def __init__(self, keys_bhrk: Tensor, values_bhrk: Tensor) -> None:
        self.keys_bhrk, self.values_bhrk = keys_bhrk, values_bhrk

    def mix(self, q_bhtk: Tensor, mixed_bhtk: Tensor) -> Tensor:
        scores_bhtr = linear(q_bhtk, self.keys_bhrk) * q_bhtk.shape[-1] ** -0.5
        return mixed_bhtk + scores_bhtr.softmax(-1) @ self.values_bhrk


class KVMemory(BlockMemory):
    """Blocks [layers, 2, r, h k]: keys, then values."""

    def shape(self, width: int) -> tuple[int, ...]:
        return len(self.layers), 2, width, self.anchor.heads * self.anchor.head_dim

    def initialise(self, blocks: Tensor, generator: torch.Generator) -> None:
        # Unit scale, as the anchor's keys have after QK-norm; with small keys all r values would
        # get one and the same gradient.
        truncated_normal(blocks, 1.0, generator)
        blocks[:, :, 1] = 0

    def parts(self, block: Tensor) -> tuple[Tensor, ...]:
        return self._split(block[:, 0]), self._split(block[:, 1])

    def attach(self, *parts: Tensor) -> Attached:
        keys_bhrk, values_bhrk = parts
        return AttachedKV(keys_bhrk, values_bhrk)

    def _split(self, x_brw: Tensor) -> Tensor:
        return x_brw.unflatten(-1, (self.anchor.heads, -1)).transpose(1, 2)
