"""A memory type as anyone would add it: each block adds its r vectors to the stream."""

import torch
from torch import Tensor

from core.memory.base import Attached, BlockMemory


class AttachedBias(Attached):
    def __init__(self, bias_brd: Tensor) -> None:
        self.bias_brd = bias_brd

    def before_attention(self, x_btd: Tensor) -> Tensor:
        return x_btd + self.bias_brd.sum(1, keepdim=True)


class BiasMemory(BlockMemory):
    """Blocks [layers, r, d]."""

    def shape(self, width: int) -> tuple[int, ...]:
        return len(self.layers), width, self.anchor.d_model

    def initialise(self, blocks: Tensor, generator: torch.Generator) -> None:
        blocks.zero_()

    def attach(self, *parts: Tensor) -> Attached:
        return AttachedBias(*parts)
