"""What a memory gives the anchor, and what the bank asks of a type that lives in blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from core.config import AnchorConfig

Projection = Literal["qkv", "out", "gate_up", "down"]
# The anchor's matrices of one layer, as it fuses them, one above the other.
FUSED: dict[Projection, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "out": ("o",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}


class Attached:
    """The memory of one layer during one forward pass: one method a site.

    Each method gets what the anchor has and returns what the anchor goes on with. A memory type
    overrides the sites that it needs; as it stands, this class is no memory.
    """

    penalty: Tensor | None = None  # nats/token that the forward pass adds to what is minimised
    # Whether torch's compiler can take a layer with it: not where sizes follow the data, or where
    # loops are our own.
    compilable = True

    def before_attention(self, x_btd: Tensor) -> Tensor:
        """The residual stream as it enters the layer."""
        return x_btd

    def project(self, name: Projection, x: Tensor, y: Tensor) -> Tensor:
        """The output `y` of one matrix for its input `x`."""
        return y

    def mix(self, q_bhtk: Tensor, mixed_bhtk: Tensor) -> Tensor:
        """The heads' mixed values, before the output projection.

        Queries come normed, neither scaled nor rotated by position.
        """
        return mixed_bhtk

    def after_ffn(
        self, x_btd: Tensor, normed_btd: Tensor, ffn: Callable[[Tensor, "Attached"], Tensor]
    ) -> Tensor:
        """The residual stream behind the FFN; a type that replaces the FFN does not call it."""
        return x_btd + ffn(normed_btd, self)

    @property
    def mergeable(self) -> bool:
        """Whether the layer with `merge`d matrices and no memory computes the same."""
        return False

    def merge(self, name: str, weight_oi: Tensor) -> Tensor:
        """One of the layer's matrices, named as in FUSED, with the memory in it."""
        return weight_oi


def per_layer(attached: Iterable[Attached], layers: Sequence[int], n_layers: int) -> list[Attached]:
    """What each of the anchor's layers sees: `attached` in turn at `layers`, nothing elsewhere."""
    at = dict(zip(layers, attached, strict=True))
    return [at.get(layer, Attached()) for layer in range(n_layers)]


class BlockMemory(ABC):
    """A memory type that lives in blocks of the bank: the layout of a block and its use.

    The levels' blocks are concatenated along their width, the last axis but one.
    """

    def __init__(self, layers: Sequence[int], anchor: AnchorConfig) -> None:
        self.layers = tuple(layers)  # of the anchor, those that hold memory
        self.anchor = anchor

    @abstractmethod
    def shape(self, width: int) -> tuple[int, ...]:
        """Of one block: (layers that hold memory, ..., width, size)."""

    @abstractmethod
    def initialise(self, blocks: Tensor, generator: torch.Generator) -> None:
        """Fill blocks [n, *shape] in place, so that the memory is a no-op."""

    def parts(self, block: Tensor) -> tuple[Tensor, ...]:
        """What `attach` takes of one layer's `block` [b, ..., width, size].

        Views [b, *, width, any] that have every number once, the last axis side by side as in the
        block.
        """
        return (block,)

    @abstractmethod
    def attach(self, *parts: Tensor) -> Attached:
        """One layer's memory from its `parts`, the levels' joined along their width.

        b is 1 where one block serves all documents of a batch.
        """
