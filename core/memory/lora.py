"""LoRA-memories: each document patches some of the anchor's matrices by a low rank.

W_mem = W + 2 B A, A in R^{r x d_in}, B in R^{d_out x r}; the levels' contributions add. The factor
is not divided by the rank, so that a level's contribution does not depend on the other levels'
widths. Source: arXiv 2510.02375, app. I (2 was best). B starts at zero, so the memory is a no-op.
"""

from typing import ClassVar

import torch
from torch import Tensor

from core.memory.base import FUSED, Attached, BlockMemory, Projection
from core.memory.products import linear

ALPHA = 2.0


class AttachedLoRA(Attached):
    """A [b, R, d_in] and B transposed [b, R, d_out] of each patched matrix."""

    def __init__(self, patches: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.patches = patches

    def project(self, name: Projection, x: Tensor, y: Tensor) -> Tensor:
        names = FUSED[name]
        if not self.patches.keys() & set(names):
            return y
        # One sum over the fused output keeps its memory layout, on which the last bit may hang.
        outputs = y.chunk(len(names), dim=-1)
        return y + torch.cat(
            [self._patch(n, x, o) for n, o in zip(names, outputs, strict=True)], dim=-1
        )

    def _patch(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        if name not in self.patches:
            return torch.zeros_like(output)
        a_bri, b_bro = self.patches[name]
        return ALPHA * (linear(x, a_bri) @ b_bro)

    @property
    def mergeable(self) -> bool:
        """Where one block serves all documents."""
        return all(len(a_bri) == 1 for a_bri, _ in self.patches.values())

    def merge(self, name: str, weight_oi: Tensor) -> Tensor:
        """W + 2 B A, summed in the precision of W."""
        if name not in self.patches:
            return weight_oi
        a_ri, b_ro = (part[0].to(weight_oi.dtype) for part in self.patches[name])
        return weight_oi + ALPHA * (b_ro.T @ a_ri)


class LoRAMemory(BlockMemory):
    """Blocks [layers, r, sum of d_in + d_out]: A and B transposed of each matrix in turn."""

    matrices: ClassVar[tuple[str, ...]]

    def shape(self, width: int) -> tuple[int, ...]:
        return len(self.layers), width, sum(self._sizes())

    def initialise(self, blocks: Tensor, generator: torch.Generator) -> None:
        parts = blocks.split(self._sizes(), dim=-1)
        for a, b in zip(parts[::2], parts[1::2], strict=True):
            bound = a.shape[-1] ** -0.5  # Kaiming-uniform with slope sqrt 5, as LoRA's A
            a.uniform_(-bound, bound, generator=generator)
            b.zero_()

    def parts(self, block: Tensor) -> tuple[Tensor, ...]:
        return block.split(self._sizes(), dim=-1)

    def attach(self, *parts: Tensor) -> Attached:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return AttachedLoRA(dict(zip(self.matrices, pairs, strict=True)))

    def _sizes(self) -> list[int]:
        """d_in and d_out of each matrix in turn."""
        d, w, f = self.anchor.d_model, self.anchor.heads * self.anchor.head_dim, self.anchor.ffn
        ends = {"q": (d, w), "k": (d, w), "v": (d, w), "o": (w, d)}
        ends |= {"gate": (d, f), "up": (d, f), "down": (f, d)}
        return [size for name in self.matrices for size in ends[name]]


class LoRAQK(LoRAMemory):
    """On the query and key matrices, before QK-norm."""

    matrices = ("q", "k")


class LoRAVO(LoRAMemory):
    """On the value and output matrices."""

    matrices = ("v", "o")


class LoRAFFN(LoRAMemory):
    """On all three matrices of the SwiGLU."""

    matrices = ("gate", "up", "down")
