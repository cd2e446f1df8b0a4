"""How a table keeps its rows: weights and moments each in fp32, or in bf16 without an fp32 master.

A step computes in fp32 whatever a table keeps, and rounds what it puts back. To the nearest, bf16
would lose every update below 1/512 of its weight, and a second moment could not decay;
stochastically they arrive in the mean. Sources: weights arXiv 2010.06192, moments in bf16
arXiv 2412.19437, sec. 3.3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Rows:
    """Rows of a table: weights, first, second [n, size] with AdamW's moments · steps [n] updates
    that a row has had
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        return [self.weights, self.first, self.second, self.steps]


# Makes a step of those rows, all in fp32, that stand at the places [u], in place.
Change = Callable[[Rows, Tensor], None]


@dataclass(frozen=True)
class RowFormat:
    """The types that a table keeps, and the `seed` of its rounding.

    A rounding hangs on the seed, the row's number and its own count of steps alone: not on other
    rows, nor on where the table lies, nor on whether the run was resumed.
    """

    weights: torch.dtype = torch.float32
    moments: torch.dtype = torch.float32
    seed: tuple[int, ...] = ()

    @property
    def parts(self) -> dict[str, torch.dtype]:
        """By the names that they have in `Rows`."""
        return {"weights": self.weights, "first": self.moments, "second": self.moments}

    @property
    def narrow(self) -> list[str]:
        """The parts that are not kept in fp32."""
        return [name for name, dtype in self.parts.items() if dtype != torch.float32]

    def changed(self, ids_u: Tensor, kept: Rows, change: Change) -> Rows:
        """Copies of the rows `ids_u` after a step, given and taken as the table keeps them."""
        rows = Rows(*map(wide, kept.tensors))
        change(rows, torch.arange(len(ids_u), device=ids_u.device))
        return self.round(ids_u, rows)

    def round(self, ids_u: Tensor, rows: Rows) -> Rows:
        """Rows `ids_u` of fp32 as the table keeps them, after the step that `rows.steps` counts."""
        if not self.narrow:
            return rows
        rounded = {n: torch.empty_like(getattr(rows, n), dtype=torch.bfloat16) for n in self.narrow}
        size = rows.weights.shape[1]
        for i, (number, step) in enumerate(zip(ids_u.tolist(), rows.steps.tolist(), strict=True)):
            draws = random_bits((*self.seed, number, step), len(rounded) * size)
            for name, bits in zip(rounded, draws.to(ids_u.device).split(size), strict=True):
                rounded[name][i] = round_stochastically(getattr(rows, name)[i], bits)
        return replace(rows, **rounded)


FP32 = RowFormat()


def wide(x: Tensor) -> Tensor:
    """bf16 exactly in fp32; the rest as it is."""
    return x.float() if x.dtype == torch.bfloat16 else x


def random_bits(seed: tuple[int, ...], n: int) -> Tensor:
    """`n` independent draws from 0 to 2^16 - 1, int32."""
    words = np.random.PCG64(seed).random_raw(-(-n // 4))
    return torch.from_numpy(words.view(np.uint16)[:n].astype(np.int32))


def round_stochastically(x: Tensor, bits: Tensor) -> Tensor:
    """fp32 to one of the two neighbours in bf16, in the mean to `x` itself.

    bf16 is the upper half of fp32: adding uniform `bits` carries into it with the probability that
    the lower half stands for. What bf16 holds, infinities and nan included, stays; finite numbers
    above its largest become that.
    """
    largest = torch.finfo(torch.bfloat16).max
    carried = x.clamp(-largest, largest).view(torch.int32).add_(bits)
    upper = carried.bitwise_right_shift_(16).to(torch.int16).view(torch.bfloat16)
    return torch.where(x.isfinite(), upper, x.bfloat16())
