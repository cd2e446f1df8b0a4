"""Where does the time of a dense training step go, beside nanoGPT in bf16?

    python benchmarks/step_profile.py --out benchmarks/step_profile.csv

The sides of dense.py, each alone in a process of its own under torch's profiler. `share` is the
part of a step's CPU time that operations of a kind take by themselves; `ms` the same in
milliseconds, which the profiler lengthens a little. Kinds are told by the operation's name, the
first that fits in KINDS; the rest is mostly what Python and autograd take for themselves.
"""

import argparse
import multiprocessing
import re
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from dense import SIZES, contest, run_config
from sides import WARM_UP, Make, machine, set_environment
from torch.profiler import ProfilerActivity, profile

from core.config import Paths

STEPS = 10
SIDES = ("ours", "nanogpt bf16")
KINDS = {
    "products": r"aten::(mm|addmm|bmm|baddbmm|matmul|linear)$|mkldnn",
    "scores and loss": r"log_softmax|nll_loss|CrossEntropy|aten::(exp|logsumexp)",
    "attention": r"_softmax|scaled_dot_product|flash_attention",
    "norms and gates": r"norm|gelu|silu|_Normalised|_Gated|_Heads",
    "sums and factors": r"aten::(add|mul|sub|div|addcmul)_?$",
    "copies and precision": r"aten::(copy_|_to_copy|clone|cat|index|fill_|zero_|embedding)",
    "optimiser": r"_fused_adam|Optimizer",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(machine())
    tables = [measure(size, side) for size in SIZES for side in SIDES]
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(given.out, index=False, float_format="%.4g")
    shown = table.pivot_table(index=["size", "side"], columns="kind", values="share", sort=False)
    print(shown.to_string(float_format="%.3f"))


def measure(size: str, side: str) -> pd.DataFrame:
    """A row a kind of operation."""
    make, variables = contest(run_config(*SIZES[size]), Paths(precision="bf16"))[side]
    ms = pd.Series(of_kinds(alone(make, variables)))
    rows = {"size": size, "side": side, "kind": ms.index, "ms": ms.to_numpy()}
    return pd.DataFrame(rows).assign(share=(ms / ms.sum()).to_numpy())


def alone(make: Make, variables: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds a step by operation, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with set_environment(variables), ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(profiled, make).result()


def profiled(make: Make) -> dict[str, float]:
    torch.set_num_threads(1)
    step = make()
    for _ in range(WARM_UP):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            step()
    return {own.key: own.self_cpu_time_total / 1e3 / STEPS for own in found.key_averages()}


def of_kinds(operations: Mapping[str, float]) -> dict[str, float]:
    kinds = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for name, ms in operations.items():
        kinds[next((k for k, words in KINDS.items() if re.search(words, name)), "the rest")] += ms
    return kinds


if __name__ == "__main__":
    main()
