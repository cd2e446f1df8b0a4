"""FFN-memory: each layer's SwiGLU grows by the widths of the fetched blocks.

FFN_mem(x) = FFN(x) + M3 (SiLU(M1 x) * M2 x), M1, M2 in R^{r x d}, M3 in R^{d x r}; the levels'
contributions add. Source: arXiv 2510.02375, sec. 2.2. M3 starts at zero, so the memory is a no-op.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from core.anchor import truncated_normal
from core.memory.base import Attached, BlockMemory
from core.memory.products import linear
from core.pointwise import swiglu


class AttachedFFN(Attached):
    """M1 over M2 as [b, 2R, d] and M3 transposed as [b, R, d], R the sum of the widths."""

    def __init__(self, gate_up_bwd: Tensor, down_brd: Tensor) -> None:
        self.gate_up_bwd, self.down_brd = gate_up_bwd, down_brd

    def after_ffn(
        self, x_btd: Tensor, normed_btd: Tensor, ffn: Callable[[Tensor, Attached], Tensor]
    ) -> Tensor:
        return super().after_ffn(x_btd, normed_btd, ffn) + self.added(normed_btd)

    def added(self, normed_btd: Tensor) -> Tensor:
        """M3 (SiLU(M1 x) * M2 x) of the normed input."""
        return swiglu(linear(normed_btd, self.gate_up_bwd)) @ self.down_brd

    @property
    def mergeable(self) -> bool:
        """Where one block serves all documents."""
        return len(self.down_brd) == 1

    def merge(self, name: str, weight_oi: Tensor) -> Tensor:
        """An FFN that is wider by R."""
        m1_rd, m2_rd = self.gate_up_bwd[0].chunk(2)
        match name:
            case "gate":
                return torch.cat((weight_oi, m1_rd))
            case "up":
                return torch.cat((weight_oi, m2_rd))
            case "down":
                return torch.cat((weight_oi, self.down_brd[0].T), dim=1)
        return weight_oi


class FFNMemory(BlockMemory):
    """Blocks [layers, 3, r, d]: M1, M2 and M3 transposed, for each layer."""

    def shape(self, width: int) -> tuple[int, ...]:
        return len(self.layers), 3, width, self.anchor.d_model

    def initialise(self, blocks: Tensor, generator: torch.Generator) -> None:
        std = self.anchor.d_model**-0.5  # as the anchor's own gate and up matrices
        truncated_normal(blocks, std, generator)
        blocks[:, :, 2] = 0

    def parts(self, block: Tensor) -> tuple[Tensor, ...]:
        return block[:, :2], block[:, 2]

    def attach(self, *parts: Tensor) -> Attached:
        gate_up_b2rd, down_brd = parts
        return AttachedFFN(gate_up_b2rd.flatten(1, 2), down_brd.contiguous())
