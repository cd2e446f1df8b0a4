"""What a memory that each token addresses has in common: dense weights, and rows read sparsely.

Autograd gives the rows that a step read, and those alone, as a sparse gradient; summed over layers,
heads and micro-batches they become one, which `RowAdamW` applies as it does for blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from core import kernels, parallel
from core.config import AnchorConfig
from core.memory.bank import RowGradient
from core.memory.base import Attached, per_layer
from core.memory.table import ResidentTable
from core.memory_config import MemoryConfig
from core.past import NO_PAST, Past


class TokenMemory(nn.Module, ABC):
    """Parameters of the module are dense and belong to AdamW; `tables` belong to RowAdamW."""

    def __init__(
        self,
        memory: MemoryConfig,
        anchor: AnchorConfig,
        layers: Sequence[int],
        draw: torch.Generator,
    ) -> None:
        super().__init__()
        self.memory, self.anchor, self.layers = memory, anchor, tuple(layers)
        self.readers = nn.ModuleList(self.reader(draw) for _ in layers)
        self.tables = self.create_tables(draw)

    @property
    def row_lr(self) -> float | None:
        """A rate of the rows' own that no schedule moves; None: the bank's."""
        return None

    @abstractmethod
    def reader(self, draw: torch.Generator) -> nn.Module:
        """The dense weights of one layer, at their initial values."""

    def create_tables(self, draw: torch.Generator) -> dict[str, ResidentTable]:
        """The tables at their initial values; none where every weight is dense."""
        return {}

    @abstractmethod
    def attach_reader(
        self, site: int, tokens_bt: Tensor, segments_bt: Tensor, dtype: torch.dtype, past: Past
    ) -> Attached:
        """What the layer of reader number `site` sees of this batch behind what `past` keeps."""

    def attach(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        dtype: torch.dtype,
        n_layers: int,
        pasts: Sequence[Past] = (),
    ) -> list[Attached]:
        """What each of the anchor's layers sees of this batch behind what its past keeps."""
        attached = (
            self.attach_reader(
                site, tokens_bt, segments_bt, dtype, pasts[layer] if pasts else NO_PAST
            )
            for site, layer in enumerate(self.layers)
        )
        return per_layer(attached, self.layers, n_layers)

    def row_gradients(self) -> list[RowGradient]:
        """Of the rows that backward passes reached since the last call."""
        taken = (_take_gradient(table) for table in self.tables.values())
        return [gradient for gradient in taken if gradient is not None]

    def table_state(self) -> dict[str, Tensor]:
        """Rows, moments and steps of every table by name, without copies."""
        return {
            f"{name}.{part}": tensor
            for name, table in self.tables.items()
            for part, tensor in table.state().items()
        }

    def tables_to(self, device: str) -> None:
        for table in self.tables.values():
            table.to(device)
            table.rows.requires_grad_()


def _take_gradient(table: ResidentTable) -> RowGradient | None:
    if table.rows.grad is None:
        return None
    ids, rows_ud = _by_row(parallel.add_up(table.rows.grad))
    table.rows.grad = None
    reached_u = _nonzero(rows_ud)  # padding reads rows too, and has no gradient
    if not reached_u.all():
        ids, rows_ud = ids[reached_u], rows_ud[reached_u]
    return RowGradient(ids, rows_ud, partial(table.update, ids))


def _by_row(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending distinct rows [u] and their gradients [u, d]. One layer's come so, but autograd
    forgets it.
    """
    ids = gradient._indices()[0]
    if not (ids[1:] > ids[:-1]).all():
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()


def _nonzero(rows_ud: Tensor) -> Tensor:
    if rows_ud.device.type != "cpu":
        return rows_ud.any(dim=1)
    nonzero_u = torch.empty(len(rows_ud), dtype=torch.bool)
    kernels.mark_nonzero(rows_ud.numpy(), nonzero_u.numpy())
    return nonzero_u
