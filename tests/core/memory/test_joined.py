"""One pass over the blocks of documents: to the bit what torch's operations make of them."""

from collections.abc import Sequence
from pkgutil import resolve_name

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.memory.base import BlockMemory
from core.memory.joined import Layout, LevelRows, joined, joined_by_passes
from core.memory_types import BLOCK_TYPES
from tests.core.memory.bias import BiasMemory
from tests.core.memory.blocks import ANCHOR, LAYERS

MEMORIES: dict[str, BlockMemory] = {
    name: resolve_name(kind.implementation)(LAYERS, ANCHOR) for name, kind in BLOCK_TYPES.items()
}
MEMORIES["as it lies"] = BiasMemory(LAYERS, ANCHOR)


def drawn(memory: BlockMemory, widths: Sequence[int], index_lb: list[list[int]]) -> list[LevelRows]:
    """Levels of three rows each."""
    levels = []
    for level, (width, index_b) in enumerate(zip(widths, index_lb, strict=True)):
        layout = Layout(memory, memory.shape(width))
        draw = torch.Generator().manual_seed(level)
        rows = torch.randn(3, *layout.shape, generator=draw).flatten(1)
        index = torch.tensor(index_b, dtype=torch.int64)
        levels.append(LevelRows(rows.requires_grad_(), index, layout))
    return levels


def outcome(parts: Sequence[Sequence[Tensor]], levels: Sequence[LevelRows]) -> list[Tensor]:
    """The parts, then the gradients of the rows from another number on each of their places."""
    flat = [part for layer in parts for part in layer]
    draw = torch.Generator().manual_seed(9)
    grads = [torch.randn(part.shape, generator=draw).bfloat16() for part in flat]
    return flat + list(torch.autograd.grad(flat, [level.rows for level in levels], grads))


@pytest.mark.parametrize("name", MEMORIES)
@given(st.data())
def test_is_to_the_bit_what_passes_make(name: str, data: st.DataObject) -> None:
    """Documents share rows, and some rows have no document."""
    documents = data.draw(st.integers(0, 5))
    row = st.lists(st.integers(0, 2), min_size=documents, max_size=documents)
    widths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    memory, index_lb = MEMORIES[name], [data.draw(row) for _ in widths]
    found, expected = (
        outcome(join(memory, levels, torch.bfloat16), levels)
        for join in (joined, joined_by_passes)
        for levels in [drawn(memory, widths, index_lb)]
    )
    for one, two in zip(found, expected, strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", MEMORIES)
def test_every_number_of_a_document_once(name: str) -> None:
    memory = MEMORIES[name]
    levels = drawn(memory, (2, 3), [[2, 0], [1, 1]])
    parts = [part for layer in joined(memory, levels, torch.bfloat16) for part in layer]
    for document in range(2):
        own = torch.cat([part[document].flatten() for part in parts])
        rows = torch.cat([level.rows[level.index[document]] for level in levels])
        assert torch.equal(own.sort().values, rows.bfloat16().sort().values)


def test_numbers_apart_are_no_part() -> None:
    class Apart(BiasMemory):
        def parts(self, block: Tensor) -> tuple[Tensor, ...]:
            return (block.transpose(-1, -2),)

    memory = Apart(LAYERS, ANCHOR)
    with pytest.raises(ValueError, match="side by side"):
        Layout(memory, memory.shape(3))
