"""What is each compiled loop worth, beside torch's own operations?

    python benchmarks/kernels.py --out benchmarks/kernels.csv

Forward and backward, in bf16 and on 2,048 tokens, of RMSNorm, of SwiGLU's gate, of what attention
takes of its heads (norm, RoPE, scale) and of the blocks of ffn that 16 documents fetch; and the
update of 64 rows with their moments; at the width of the 0.2M, 1M and 10M anchors of `dense.py`.
Each side in a process of its own, one thread, with the sweeps' allocator settings, in turns; CPU
time over that of the compiled loop, median and quartiles over rounds.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from dense import SIZES, run_config
from sides import Side, Step, machine, ratios, take_turns
from torch import Tensor

from core.heads import Heads, rotary, split_heads, split_heads_by_passes
from core.memory.ffn import FFNMemory
from core.memory.joined import Layout, LevelRows, joined, joined_by_passes
from core.memory.optimizer import RowAdamW
from core.memory.row_format import Rows
from core.pointwise import EPSILON, RMSNorm, swiglu
from sweeps.ray_session import WORKERS

TOKENS, DOCUMENTS = 2048, 16
BLOCKS, MULTIPLIER = 64, 8  # rows of a bank: blocks of r = 8 in every layer
NAMES = ("compiled", "torch")
ROUNDS, BLOCK_SECONDS = 9, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(machine())
    tables = [measure(size, loop) for size in ("0.2M", "1M", "10M") for loop in LOOPS]
    table = pd.concat(tables)
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.3g"))


def measure(size: str, loop: str) -> pd.DataFrame:
    """One row a side."""
    sides = {name: Side(partial(step, size, loop, name), WORKERS) for name in NAMES}
    table = ratios(take_turns(sides, ROUNDS, BLOCK_SECONDS), NAMES[0]).reset_index()
    for side in sides.values():
        side.close()
    table.insert(0, "anchor", size)
    table.insert(1, "loop", loop)
    return table


def step(size: str, loop: str, name: str) -> Step:
    return LOOPS[loop](*SIZES[size])[NAMES.index(name)]


def norms(layers: int, width: int) -> tuple[Step, Step]:
    x_nd, norm = drawn(TOKENS, width), RMSNorm(width)

    def by_torch() -> Tensor:
        return F.rms_norm(x_nd, x_nd.shape[-1:], norm.gain.to(x_nd.dtype), EPSILON)

    return partial(backward, lambda: norm(x_nd)), partial(backward, by_torch)


def gates(layers: int, width: int) -> tuple[Step, Step]:
    gate_up_nf = drawn(TOKENS, 2 * run_config(layers, width).anchor.ffn)

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


def heads(layers: int, width: int) -> tuple[Step, Step]:
    anchor = run_config(layers, width).anchor
    qkv_btw = drawn(DOCUMENTS, TOKENS // DOCUMENTS, 3 * width)
    rotation = rotary(qkv_btw.shape[1], anchor, qkv_btw.dtype, qkv_btw.device)
    given = qkv_btw, RMSNorm(width), RMSNorm(width), rotation, anchor.head_dim

    def own(split: Callable[..., Heads]) -> None:
        taken = split(*given)[1:]  # normed queries without RoPE are for some memories alone
        torch.autograd.backward(taken, [torch.ones_like(x) for x in taken])

    return partial(own, split_heads), partial(own, split_heads_by_passes)


def blocks(layers: int, width: int) -> tuple[Step, Step]:
    """Of two levels, the first of which documents share."""
    memory = FFNMemory(range(layers), run_config(layers, width).anchor)
    levels = []
    for index, width in ((torch.arange(DOCUMENTS) % 8, 32), (torch.arange(DOCUMENTS), 20)):
        layout = Layout(memory, memory.shape(width))
        rows = torch.randn(len(index.unique()), math.prod(layout.shape)).requires_grad_()
        levels.append(LevelRows(rows, index, layout))

    def own(join: Callable[..., list[tuple[Tensor, ...]]]) -> None:
        parts = [part for layer in join(memory, levels, torch.bfloat16) for part in layer]
        torch.autograd.backward(parts, [torch.ones_like(part) for part in parts])

    return partial(own, joined), partial(own, joined_by_passes)


LOOPS = {"norm": norms, "gate": gates, "heads": heads, "blocks": blocks, "rows": rows}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().requires_grad_()


def backward(forward: Step) -> None:
    y = forward()
    assert isinstance(y, Tensor)
    y.backward(torch.ones_like(y))


if __name__ == "__main__":
    main()
