"""What is each compiled loop worth, beside torch's own operations?

    python benchmarks/kernels.py --out benchmarks/kernels.csv

Forward and backward of RMSNorm and of SwiGLU's gate in bf16, on 2,048 tokens, and the update of 64
rows with their moments; at the width of the 0.2M, 1M and 10M anchors of `dense.py`. One process,
one thread, in turns; CPU time over that of the compiled loop, median and quartiles over rounds.
"""

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from dense import SIZES, run_config
from sides import Step, machine, ratios, take_turns, timer
from torch import Tensor

from core.memory.optimizer import RowAdamW
from core.memory.row_format import Rows
from core.pointwise import EPSILON, RMSNorm, swiglu

TOKENS, BLOCKS, MULTIPLIER = 2048, 64, 8  # rows of a bank: blocks of r = 8 in every layer
ROUNDS, BLOCK_SECONDS = 9, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    tables = [measure(size, loop) for size in ("0.2M", "1M", "10M") for loop in LOOPS]
    table = pd.concat(tables)
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.3g"))


def measure(size: str, loop: str) -> pd.DataFrame:
    """One row a side."""
    steps = dict(zip(("compiled", "torch"), LOOPS[loop](*SIZES[size]), strict=True))
    seconds = take_turns({n: timer(step) for n, step in steps.items()}, ROUNDS, BLOCK_SECONDS)
    table = ratios(seconds, "compiled").reset_index()
    table.insert(0, "anchor", size)
    table.insert(1, "loop", loop)
    return table


def norms(layers: int, width: int) -> tuple[Step, Step]:
    x_nd, norm = tokens(width), RMSNorm(width)

    def by_torch() -> Tensor:
        return F.rms_norm(x_nd, x_nd.shape[-1:], norm.gain.to(x_nd.dtype), EPSILON)

    return partial(backward, lambda: norm(x_nd)), partial(backward, by_torch)


def gates(layers: int, width: int) -> tuple[Step, Step]:
    gate_up_nf = tokens(2 * run_config(layers, width).anchor.ffn)

    def by_torch() -> Tensor:
        gate, up = gate_up_nf.chunk(2, dim=-1)
        return F.silu(gate) * up

    return partial(backward, lambda: swiglu(gate_up_nf)), partial(backward, by_torch)


def rows(layers: int, width: int) -> tuple[Step, Step]:
    optimizer = RowAdamW(0.9, 0.95, 0.0, 1.0)
    size = 3 * layers * width * MULTIPLIER
    weights, first, second, gradient = torch.rand(4, BLOCKS, size)
    table = Rows(weights, first, second, torch.zeros(BLOCKS, dtype=torch.int64))
    given = gradient, 1e-6, table, torch.arange(BLOCKS)
    return partial(optimizer._compiled, *given), partial(optimizer._by_passes, *given)


LOOPS = {"norm": norms, "gate": gates, "rows": rows}


def tokens(width: int) -> Tensor:
    return torch.randn(TOKENS, width).bfloat16().requires_grad_()


def backward(forward: Step) -> None:
    y = forward()
    assert isinstance(y, Tensor)
    y.backward(torch.ones_like(y))


if __name__ == "__main__":
    main()
