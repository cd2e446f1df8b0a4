"""How fast is the product-key layer, beside the PyPI package product-key-memory?

    python benchmarks/product_keys.py --out benchmarks/product_keys.csv

A whole training step of the layer alone: forward, backward, AdamW; 2,048 tokens of width 128, four
heads, 32 slots a head, half queries of 32; float32, one thread. Each side has a process of its own
and they take turns. `ours` has the allocator settings of a sweep; `package` the allocator as it is,
as a script that imports it has; `package, our allocator` stands beside. The package updates all its
values with torch's fused AdamW, ours those that were read (`RowAdamW`); ours also has the gate and
output matrices of arXiv 2412.09764, which the package has not.
"""

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from product_key_memory import PKM
from sides import Side, Step, machine, ratios, take_turns

from core.config import AnchorConfig
from core.memory.optimizer import RowAdamW
from core.memory.pkm import PKMemory
from core.memory_config import MemoryConfig

KEYS = (64, 128, 256, 512)  # slots are their squares
TOKENS, WIDTH, HEADS, TOP_K = 2048, 128, 4, 32
ROUNDS, BLOCK_SECONDS = 7, 0.5
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(machine())
    tables: list[pd.DataFrame] = []
    for keys in KEYS:
        tables.append(measure(keys))
        pd.concat(tables).to_csv(given.out, index=False, float_format="%.4g")


def measure(keys: int) -> pd.DataFrame:
    """One row a side."""
    from sweeps.ray_session import WORKERS  # imports Ray, which no side needs

    sides = {
        "ours": Side(partial(our_step, keys), WORKERS),
        "package": Side(partial(package, keys), {}),
        "package, our allocator": Side(partial(package, keys), WORKERS),
    }
    seconds = take_turns(sides, ROUNDS, BLOCK_SECONDS)
    for side in sides.values():
        side.close()
    table = ratios(seconds, "ours").reset_index()
    table.insert(0, "slots", keys**2)
    print(table.to_string(index=False, float_format="%.3g"), flush=True)
    return table


def our_step(keys: int) -> Step:
    anchor = AnchorConfig(layers=1, d_model=WIDTH, heads=HEADS, head_dim=32, ffn=WIDTH)
    settings = MemoryConfig(type="pkm", keys=keys, heads=HEADS, top_k=TOP_K)
    memory = PKMemory(settings, anchor, (0,), torch.Generator().manual_seed(0))
    memory.tables_to("cpu")
    layer, values = memory.readers[0], memory.tables["values"]
    torch.nn.init.normal_(layer.out_dd, std=WIDTH**-0.5)  # at zero no gradient reaches the values
    dense = torch.optim.AdamW(memory.parameters(), lr=RATE, fused=True)
    rows = RowAdamW(0.9, 0.999, 0.0, 1.0)
    x_nd, target_nd = given_and_wanted()

    def step() -> None:
        (layer(x_nd, values.rows) - target_nd).square().mean().backward()
        dense.step()
        dense.zero_grad(set_to_none=True)
        rows.step(memory.row_gradients(), RATE)

    return step


def package(keys: int) -> Step:
    layer = PKM(WIDTH, heads=HEADS, num_keys=keys, topk=TOP_K, dim_head=WIDTH // 4)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE, fused=True)
    x_nd, target_nd = given_and_wanted()

    def step() -> None:
        (layer(x_nd[None]) - target_nd).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def given_and_wanted() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(TOKENS, WIDTH, generator=draw), torch.randn(TOKENS, WIDTH, generator=draw)


if __name__ == "__main__":
    main()
