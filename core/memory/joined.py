"""The blocks of a batch's documents, levels joined: in bf16 on CPUs in one pass over memory.

torch rounds the rows, deals them out to documents, joins the levels and cuts out the parts that
products take, a copy each, and makes all of them again on the way back.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core import kernels
from core.memory.base import BlockMemory
from core.pointwise import array, bits, by_loops

Places = NDArray[np.int64]


class Layout:
    """How a row holds one block of `shape`.

    places: of each part of each layer in turn, where in the row its numbers [*, width, 0] stand;
    those of the last axis, as many as `sizes` says, follow.
    """

    def __init__(self, memory: BlockMemory, shape: tuple[int, ...]) -> None:
        self.shape = shape
        layers = torch.empty(shape, device="meta").unsqueeze(0).unbind(1)
        parts = [part for layer in layers for part in memory.parts(layer)]
        self.sizes = [part.shape[-1] for part in parts]
        self.places = [_places(part[0]) for part in parts]


def _places(part: Tensor) -> Places:
    if part.stride(-1) != 1:
        raise ValueError("a part's last axis does not lie side by side in the block")
    places: Places = np.array(part.storage_offset())
    for n, stride in zip(part.shape[:-1], part.stride()[:-1], strict=True):
        places = places[..., None] + np.arange(n) * stride
    return places


@dataclass(frozen=True)
class LevelRows:
    """rows [u, size] of one level in fp32 · index [b] row of each document"""

    rows: Tensor
    index: Tensor
    layout: Layout


def joined(
    memory: BlockMemory, levels: Sequence[LevelRows], dtype: torch.dtype
) -> list[tuple[Tensor, ...]]:
    """Each layer's parts [b, *, sum of the levels' widths, size] in `dtype`."""
    if by_loops(levels[0].rows.device, dtype):
        layouts = [level.layout for level in levels]
        indices = [level.index.numpy() for level in levels]
        rows = (level.rows for level in levels)
        flat = _Joined.apply(layouts, indices, *rows)  # type: ignore[no-untyped-call]
        layers = layouts[0].shape[0]
        n = len(flat) // layers
        return [flat[n * layer : n * (layer + 1)] for layer in range(layers)]
    return joined_by_passes(memory, levels, dtype)


def joined_by_passes(
    memory: BlockMemory, levels: Sequence[LevelRows], dtype: torch.dtype
) -> list[tuple[Tensor, ...]]:
    """By torch's operations."""
    blocks = []
    for level in levels:
        # Backwards an embedding adds up whole rows, which indexing does a number at a time.
        own = F.embedding(level.index, level.rows.to(dtype))
        blocks.append(own.unflatten(1, level.layout.shape).unbind(1))
    return [memory.parts(torch.cat(layer, dim=-2)) for layer in zip(*blocks, strict=True)]


class _Joined(torch.autograd.Function):
    """Gradients of documents that share a row are added up in bf16, as those of an embedding."""

    @staticmethod
    def forward(
        ctx: Any, layouts: list[Layout], indices: list[NDArray[np.int64]], *rows: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.layouts, ctx.indices, ctx.shapes = layouts, indices, [x.shape for x in rows]
        rows_un = [array(x) for x in rows]
        parts = [
            torch.empty(len(indices[0]), *shape, dtype=torch.bfloat16) for shape in _shapes(layouts)
        ]
        for part, level, places_cr, first in _strips(layouts):
            kernels.deal(rows_un[level], indices[level], places_cr, first, _bits(parts[part]))
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found = [torch.empty(shape) for shape in ctx.shapes]
        rows_un = [array(x) for x in found]
        for part, level, places_cr, first in _strips(ctx.layouts):
            grad = _bits(grads[part].contiguous())
            kernels.collect(grad, ctx.indices[level], places_cr, first, rows_un[level])
        return None, None, *found


def _shapes(layouts: Sequence[Layout]) -> Iterator[tuple[int, ...]]:
    """Of each part of each layer, one document's."""
    for size, *levels in zip(layouts[0].sizes, *(x.places for x in layouts), strict=True):
        yield *levels[0].shape[:-1], sum(places.shape[-1] for places in levels), size


def _strips(layouts: Sequence[Layout]) -> Iterator[tuple[int, int, Places, int]]:
    """What each level has of each part: (part, level, places [c, r], its first row in the part)."""
    for part, levels in enumerate(zip(*(x.places for x in layouts), strict=True)):
        first = 0
        for level, places in enumerate(levels):
            width = places.shape[-1]
            yield part, level, places.reshape(-1, width), first
            first += width


def _bits(part: Tensor) -> NDArray[np.uint16]:
    """The bf16 of a contiguous tensor [b, *, width, size] as uint16 [b, c, width, size]."""
    b, *between, width, size = part.shape
    return bits(part.view(b, math.prod(between), width, size))
