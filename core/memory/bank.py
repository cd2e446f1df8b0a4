"""The bank: a table per level, one row a block, each row beside its moments.

A step fetches the distinct rows of its batch as leaf tensors, the model uses them, and `RowAdamW`
updates those rows and their moments in the table. So a step costs what it fetches, whatever the
size of the bank, and a row that was not fetched does not move: no decay, no momentum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core import parallel
from core.memory.base import Attached, BlockMemory, per_layer
from core.memory.disk import DiskTable
from core.memory.joined import Layout, LevelRows, joined
from core.memory.row_format import FP32, RowFormat, wide
from core.memory.table import DistantTable, Draw, ResidentTable, Table, Update


@dataclass(frozen=True)
class RowGradient:
    """What a step's backward passes gave some rows of a table: values [u, size] of the row numbers
    ids [u], ascending; `update` changes these rows
    """

    ids: Tensor
    values: Tensor
    update: Update


@dataclass(frozen=True)
class Fetch:
    """The distinct rows of one batch at one level.

    ids [u] row numbers, ascending · rows [u, size] weights in fp32, leaves with gradient ·
    index [b] row of each document · `update` changes the rows in their table
    """

    table: Table
    ids: Tensor
    rows: Tensor
    index: Tensor
    update: Update


def row_gradients(fetches: Sequence[Fetch]) -> list[RowGradient]:
    """Of the levels that a backward pass has reached."""
    return [
        RowGradient(fetch.ids, fetch.rows.grad, fetch.update)
        for fetch in fetches
        if fetch.rows.grad is not None
    ]


@dataclass(frozen=True)
class BankPlace:
    """Where tables lie: in the memory of `device` or, where a `folder` is given, in its files.

    Of several processes the first has them. `pinned`: in host memory, for an anchor on a GPU.
    """

    device: str = "cpu"
    folder: Path | None = None
    pinned: bool = False

    def create(
        self, level: int, n: int, shape: tuple[int, ...], draw: Draw, row_format: RowFormat
    ) -> Table:
        """The table of a level, of `n` blocks."""
        if not parallel.first():
            return DistantTable(shape)
        if self.folder:
            return DiskTable(self.folder / f"level{level}", n, shape, draw, row_format)
        table = ResidentTable.drawn(n, shape, draw, row_format).to(self.device)
        table.pinned = self.pinned
        return table


class Bank:
    """All memory parameters. Levels of width 0 hold nothing."""

    def __init__(
        self,
        memory: BlockMemory,
        clusters: Sequence[int],
        widths: Sequence[int],
        seed: int,
        place: BankPlace = BankPlace(),
        row_format: RowFormat = FP32,
    ) -> None:
        self.memory = memory
        self.tables: dict[int, Table] = {}
        self.layouts = [Layout(memory, memory.shape(width)) for width in widths if width]
        for level, (n, width) in enumerate(zip(clusters, widths, strict=True)):
            if width:
                shape, draw = memory.shape(width), partial(draw_block, memory, (seed, level))
                own = replace(row_format, seed=(seed, level))
                self.tables[level] = place.create(level, n, shape, draw, own)

    def fetch(self, path_bl: Tensor) -> list[Fetch]:
        """The rows on the paths [b, levels] of a batch, as leaves of the graph."""
        fetches = []
        for level, table in self.tables.items():
            ids, index = torch.unique(path_bl[:, level], return_inverse=True)
            ids = ids.to(table.device)
            weights, update = table.read(ids)
            rows = wide(weights.to(path_bl.device, non_blocking=True))
            parallel.copy_first(rows)
            fetches.append(Fetch(table, ids, rows.requires_grad_(), index, update))
        return fetches

    def attach(
        self, fetches: Sequence[Fetch], n_layers: int, dtype: torch.dtype, part: slice = slice(None)
    ) -> list[Attached]:
        """What each of the anchor's layers sees, for the documents `part` of the fetched batch."""
        alike = all(len(fetch.ids) == 1 for fetch in fetches)  # one block for all: a plain product
        levels = [
            LevelRows(fetch.rows, fetch.index[:1] if alike else fetch.index[part], layout)
            for fetch, layout in zip(fetches, self.layouts, strict=True)
        ]
        attached = (self.memory.attach(*parts) for parts in joined(self.memory, levels, dtype))
        return per_layer(attached, self.memory.layers, n_layers)

    def read_ahead(self, path_bl: Tensor) -> None:
        """Begin to read the rows that the next batch will fetch, where that takes time."""
        for level, table in self.tables.items():
            table.read_ahead(path_bl[:, level])

    def checkpoint(self, step: int, oldest: int) -> None:
        """Files can go back here, and to checkpoints down to that of step `oldest`."""
        for table in self.tables.values():
            table.checkpoint(step, oldest)

    def roll_back(self, step: int) -> None:
        """Files to what they held at the checkpoint of `step`; 0 is the beginning."""
        for table in self.tables.values():
            table.roll_back(step)

    def resident(self) -> dict[int, ResidentTable]:
        """The tables that lie in memory."""
        return {n: table for n, table in self.tables.items() if isinstance(table, ResidentTable)}

    def state(self) -> dict[str, Tensor]:
        """Every tensor in memory by name, without copies."""
        return {
            f"{level}.{name}": tensor
            for level, table in self.resident().items()
            for name, tensor in table.state().items()
        }


def draw_block(memory: BlockMemory, place: tuple[int, int], number: int, block: Tensor) -> None:
    """Fill block [1, *shape] with its initial values in place.

    They hang on its `place` (seed, level) and number alone: not on the size of the bank, nor on
    where it lies, nor on when a block comes into being.
    """
    (seed,) = np.random.SeedSequence((*place, number)).generate_state(1, np.uint64)
    memory.initialise(block, torch.Generator().manual_seed(int(seed)))
