"""The bank: a table per level, one row a block, each row beside its moments.

A step fetches the distinct rows of its batch as leaf tensors, the model uses them, `RowAdamW`
updates those rows and their moments, and the rows go back. So a step costs what it fetches,
whatever the size of the bank, and a row that was not fetched does not move: no decay, no momentum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from core.memory.base import Attached, BlockMemory, per_layer


@dataclass
class Table:
    """One level, resident in memory.

    rows [n, size] weights · first, second [n, size] moments · steps [n] updates that a row has had
    """

    shape: tuple[int, ...]  # of one block; its row is flat
    rows: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor

    @classmethod
    def of(cls, rows: Tensor, shape: tuple[int, ...]) -> "Table":
        """Rows as they are, with moments at zero."""
        zeros = torch.zeros_like(rows)
        return cls(shape, rows, zeros, zeros.clone(), torch.zeros(len(rows), dtype=torch.int64))

    def state(self) -> dict[str, Tensor]:
        """Every tensor by name, without copies."""
        return {name: getattr(self, name) for name in ("rows", "first", "second", "steps")}

    def to(self, device: str) -> None:
        for name, tensor in self.state().items():
            setattr(self, name, tensor.detach().to(device))


@dataclass
class Fetch:
    """The distinct rows of one batch at one level.

    ids [u] row numbers, ascending · rows [u, size] leaf with gradient · index [b] row of each
    document
    """

    table: Table
    ids: Tensor
    rows: Tensor
    index: Tensor


class Bank:
    """All memory parameters. Levels of width 0 hold nothing."""

    def __init__(
        self, memory: BlockMemory, clusters: Sequence[int], widths: Sequence[int], seed: int
    ) -> None:
        self.memory = memory
        self.tables: dict[int, Table] = {}
        for level, (n, width) in enumerate(zip(clusters, widths, strict=True)):
            if width:
                shape = memory.shape(width)
                rows = torch.empty(n, prod(shape))
                for block in range(n):
                    draw_block(memory, rows[block].view(1, *shape), (seed, level, block))
                self.tables[level] = Table.of(rows, shape)

    def fetch(self, path_bl: Tensor) -> list[Fetch]:
        """The rows on the paths [b, levels] of a batch, as leaves of the graph."""
        fetches = []
        for level, table in self.tables.items():
            ids, index = torch.unique(path_bl[:, level], return_inverse=True)
            rows = table.rows.index_select(0, ids).requires_grad_()
            fetches.append(Fetch(table, ids, rows, index))
        return fetches

    def attach(
        self, fetches: Sequence[Fetch], n_layers: int, dtype: torch.dtype, part: slice = slice(None)
    ) -> list[Attached]:
        """What each of the anchor's layers sees, for the documents `part` of the fetched batch."""
        alike = all(len(fetch.ids) == 1 for fetch in fetches)  # one block for all: a plain product
        blocks = [
            (f.rows.to(dtype) if alike else f.rows.to(dtype)[f.index[part]]).unflatten(
                1, f.table.shape
            )
            for f in fetches
        ]
        block = torch.cat(blocks, dim=-2)
        attached = map(self.memory.attach, block.unbind(1))
        return per_layer(attached, self.memory.layers, n_layers)

    def to(self, device: str) -> "Bank":
        for table in self.tables.values():
            table.to(device)
        return self

    def parameters(self) -> int:
        """W, the number of memory parameters."""
        return sum(table.rows.numel() for table in self.tables.values())

    def state(self) -> dict[str, Tensor]:
        """Every tensor by name, without copies."""
        return {
            f"{level}.{name}": tensor
            for level, table in self.tables.items()
            for name, tensor in table.state().items()
        }


def draw_block(memory: BlockMemory, block: Tensor, place: tuple[int, int, int]) -> None:
    """Fill block [1, *shape] with its initial values in place.

    They hang on its `place` (seed, level, number) alone: not on the size of the bank, nor on when a
    block comes into being.
    """
    (seed,) = np.random.SeedSequence(place).generate_state(1, np.uint64)
    memory.initialise(block, torch.Generator().manual_seed(int(seed)))
