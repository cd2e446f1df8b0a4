"""One level of a bank: rows beside their moments, wherever they lie."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from math import prod

import torch
from torch import Tensor

from core.memory.row_format import FP32, Change, RowFormat, Rows

# Fills the block [1, *shape] of a number with its initial values.
Draw = Callable[[int, Tensor], None]
# Lets a change work on certain rows of a table.
Update = Callable[[Change], None]


def initial(draw: Draw, number: int, shape: tuple[int, ...]) -> Tensor:
    """The initial values [size] of a row, in fp32."""
    block = torch.empty(1, *shape)
    draw(number, block)
    return block.flatten()


class Table(ABC):
    """Rows by number; `shape` is that of one block, whose row is flat."""

    shape: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where row numbers and rows are given and taken."""
        return torch.device("cpu")

    @abstractmethod
    def read(self, ids_u: Tensor) -> tuple[Tensor, Update]:
        """Of the rows `ids_u`, ascending and distinct: a copy of the weights [u, size] as the table
        keeps them, and what updates them there.
        """

    @abstractmethod
    def read_ahead(self, ids_b: Tensor) -> None:
        """Begin to read the rows, each needed once, that `read` will be asked for next."""

    @abstractmethod
    def checkpoint(self, step: int, oldest: int) -> None:
        """`roll_back` can return here, and to checkpoints down to that of step `oldest`."""

    @abstractmethod
    def roll_back(self, step: int) -> None:
        """To what the table held at the checkpoint of `step`; 0 is the beginning.

        A run calls it before it trains, for the process before it may have died after a checkpoint.
        """


class ResidentTable(Table):
    """All rows in memory, on one device: rows, first, second [n, size], steps [n]."""

    pinned = False  # what is read lies where a GPU takes it by itself while this process goes on

    def __init__(self, rows: Tensor, shape: tuple[int, ...], row_format: RowFormat = FP32) -> None:
        self.shape, self.format = shape, row_format
        self.rows = rows.to(row_format.weights)
        self.first, self.second = (
            torch.zeros_like(rows, dtype=row_format.moments) for _ in range(2)
        )
        self.steps = torch.zeros(len(rows), dtype=torch.int64)

    @classmethod
    def drawn(
        cls, n: int, shape: tuple[int, ...], draw: Draw, row_format: RowFormat
    ) -> "ResidentTable":
        rows = torch.empty(n, prod(shape), dtype=row_format.weights)
        for number, row in enumerate(rows):
            row.copy_(initial(draw, number, shape))
        return cls(rows, shape, row_format)

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def read(self, ids_u: Tensor) -> tuple[Tensor, Update]:
        rows = self.rows.detach()
        size = len(ids_u), rows.shape[1]
        room = torch.empty(size, dtype=rows.dtype, device=rows.device, pin_memory=self.pinned)
        return torch.index_select(rows, 0, ids_u, out=room), partial(self.update, ids_u)

    def update(self, ids_u: Tensor, change: Change) -> None:
        """Rows of fp32 are changed where they lie."""
        everything = [part.detach() for part in self.state().values()]
        if not self.format.narrow:
            change(Rows(*everything), ids_u)
            return
        kept = Rows(*(part.index_select(0, ids_u) for part in everything))
        changed = self.format.changed(ids_u, kept, change)
        for part, new in zip(everything, changed.tensors, strict=True):
            part.index_copy_(0, ids_u, new)

    def read_ahead(self, ids_b: Tensor) -> None:
        """Nothing: memory is at hand."""

    def checkpoint(self, step: int, oldest: int) -> None:
        """Nothing: a checkpoint of the run holds the whole table."""

    def roll_back(self, step: int) -> None:
        """Nothing, as above."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor by name, without copies, in the order of `Rows`."""
        return {name: getattr(self, name) for name in ("rows", "first", "second", "steps")}

    def to(self, device: str) -> "ResidentTable":
        for name, tensor in self.state().items():
            setattr(self, name, tensor.detach().to(device))
        return self


class DistantTable(Table):
    """The rows lie with another process: it reads them, sends them and updates them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def read(self, ids_u: Tensor) -> tuple[Tensor, Update]:
        """Room for the weights; an update does nothing."""
        return torch.empty(len(ids_u), prod(self.shape)), lambda change: None

    def read_ahead(self, ids_b: Tensor) -> None:
        """Nothing."""

    def checkpoint(self, step: int, oldest: int) -> None:
        """Nothing."""

    def roll_back(self, step: int) -> None:
        """Nothing."""
