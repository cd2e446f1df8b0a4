"""What every memory type gives the anchor, and what it asks of the bank."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Attached(ABC):
    """The fetched memory of one layer, during one forward pass."""

    @abstractmethod
    def ffn(self, x_btd: Tensor) -> Tensor:
        """What the memory adds to the FFN output, from the same normed input; same shape."""


class BlockMemory(ABC):
    """A memory type that lives in blocks of the bank: the layout of a block and its use.

    A block is a flat row; `row_size(width)` says how long. Levels compose by concatenation.
    """

    def __init__(self, layers: Sequence[int], d_model: int) -> None:
        self.layers = tuple(layers)  # of the anchor, those that hold memory
        self.d_model = d_model

    @abstractmethod
    def row_size(self, width: int) -> int:
        """Parameters of a block of multiplier `width`."""

    @abstractmethod
    def initialise(self, rows: Tensor, width: int, generator: torch.Generator) -> None:
        """Fill rows [n, row_size] in place, so that the memory is a no-op."""

    @abstractmethod
    def attach(self, blocks: Sequence[tuple[int, Tensor]], n_layers: int) -> list[Attached | None]:
        """One entry for each of the anchor's layers, None where there is no memory.

        `blocks` holds per level (width, rows [b, row_size]) for the b documents of a batch; rows
        [1, row_size] serve all of them.
        """
