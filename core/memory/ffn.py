"""FFN-memory: each layer's SwiGLU grows by the widths of the fetched blocks.

FFN_mem(x) = FFN(x) + M3 (SiLU(M1 x) * M2 x), M1, M2 in R^{r x d}, M3 in R^{d x r}; the levels'
contributions add. Source: arXiv 2510.02375, sec. 2.2. M3 starts at zero, so the memory is a no-op.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core.memory.base import Attached, BlockMemory


class AttachedFFN(Attached):
    """M1 over M2 as [b, 2R, d] and M3 transposed as [b, R, d], R the sum of the widths."""

    def __init__(self, gate_up_bwd: Tensor, down_brd: Tensor) -> None:
        self.gate_up_bwd, self.down_brd = gate_up_bwd, down_brd

    def ffn(self, x_btd: Tensor) -> Tensor:
        gate_btr, up_btr = (x_btd @ self.gate_up_bwd.transpose(-1, -2)).chunk(2, dim=-1)
        return (F.silu(gate_btr) * up_btr) @ self.down_brd


class FFNMemory(BlockMemory):
    """A row is [layers, 3, r, d] flattened: M1, M2 and M3 transposed, for each layer."""

    def row_size(self, width: int) -> int:
        return len(self.layers) * 3 * width * self.d_model

    def initialise(self, rows: Tensor, width: int, generator: torch.Generator) -> None:
        parts = rows.view(len(rows), len(self.layers), 3, width, self.d_model)
        std = self.d_model**-0.5  # as the anchor's own gate and up matrices
        torch.nn.init.trunc_normal_(parts, std=std, a=-3 * std, b=3 * std, generator=generator)
        parts[:, :, 2] = 0

    def attach(self, blocks: Sequence[tuple[int, Tensor]], n_layers: int) -> list[Attached | None]:
        shaped = [
            rows.view(len(rows), len(self.layers), 3, width, self.d_model) for width, rows in blocks
        ]
        parts_bl3rd = torch.cat(shaped, dim=3)
        attached: list[Attached | None] = [None] * n_layers
        for site, layer in enumerate(self.layers):
            gate_up_bwd = parts_bl3rd[:, site, :2].flatten(1, 2)
            attached[layer] = AttachedFFN(gate_up_bwd, parts_bl3rd[:, site, 2])
        return attached
