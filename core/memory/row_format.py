"""How a table keeps its rows: weights and moments each in fp32, or in bf16 without an fp32 master.

A step computes in fp32 whatever a table keeps, and rounds what it puts back. To the nearest, bf16
would lose every update below 1/512 of its weight, and a second moment could not decay;
stochastically they arrive in the mean. Sources: weights arXiv 2010.06192, moments in bf16
arXiv 2412.19437, sec. 3.3.3.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Rows:
    """Some rows of a table, as copies.

    weights, first, second [u, size] with AdamW's moments · steps [u] updates that a row has had
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor

    def to(self, device: torch.device) -> "Rows":
        return Rows(*(getattr(self, field.name).to(device) for field in fields(self)))

    def wide(self) -> "Rows":
        """What is kept in bf16, exactly in fp32."""
        kept = (getattr(self, field.name) for field in fields(self))
        return Rows(*(x.float() if x.dtype == torch.bfloat16 else x for x in kept))


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

    def round(self, ids_u: Tensor, rows: Rows) -> Rows:
        """Rows `ids_u` of fp32 as the table keeps them, after the step that `rows.steps` counts."""
        narrow = [name for name, dtype in self.parts.items() if dtype != torch.float32]
        if not narrow:
            return rows
        rounded = {n: torch.empty_like(getattr(rows, n), dtype=torch.bfloat16) for n in narrow}
        size = rows.weights.shape[1]
        for i, (number, step) in enumerate(zip(ids_u.tolist(), rows.steps.tolist(), strict=True)):
            draws = random_bits((*self.seed, number, step), len(narrow) * size)
            for name, bits in zip(narrow, draws.to(ids_u.device).split(size), strict=True):
                rounded[name][i] = round_stochastically(getattr(rows, name)[i], bits)
        return replace(rows, **rounded)


FP32 = RowFormat()


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
