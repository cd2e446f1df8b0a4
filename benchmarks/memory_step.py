"""What does a memory cost a training step, beside a dense model of as many runtime parameters?

    python benchmarks/memory_step.py --out benchmarks/memory_step.csv
    python benchmarks/memory_step.py --trunk compiled --out benchmarks/memory_step_compiled.csv

Whole steps of a 1M-parameter anchor (5x128, 16 rows of 128 tokens, bf16 where the machine has it)
with a memory against the dense model whose FFNs are wider by what a step fetches: equal runtime
parameters to within a width. Every document of a batch has its own blocks at the deepest level. A
memory that replaces FFNs (pkm, moe) does so in its layers, so its runtime parameters differ: they
stand beside its ratio. Each side in a process of its own, one thread, with the sweeps' allocator
settings, in turns; CPU time, median and quartiles of the ratio over the rounds of all launches.
`--trunk compiled` has the layers of all sides compiled, dense's too.
"""

import argparse
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sides import Side, Step, machine, ratios, take_turns

from core.accounting import count_parameters
from core.calibrate import random_text
from core.config import Paths, RunConfig, Runtime, parse_config
from core.trainer import Trainer

LAYERS, WIDTH, FFN, ROWS = 5, 128, 344, 16
ADDED = 52  # to the width of each FFN: a tenth of the anchor is fetched
FETCHED = 3 * LAYERS * WIDTH * ADDED
BLOCKS: dict[str, Any] = {"fetched": FETCHED, "shape": [32, 20]}
PLACEMENTS = ("uniform", "early", "middle", "late", "every-2")
MEMORIES: dict[str, dict[str, Any]] = {
    **{f"ffn {place}": {"type": "ffn", "placement": place, **BLOCKS} for place in PLACEMENTS},
    **{name: {"type": name, **BLOCKS} for name in ("kv", "lora-qk", "lora-vo", "lora-ffn")},
    "generic": {"type": "generic", **BLOCKS},
    "pkm": {"type": "pkm", "keys": 128, "heads": 4, "top_k": 8, "placement": "middle-1"},
    "ngram": {"type": "ngram", "rows": 20_000, "heads": 4, "row_dim": 16, "placement": [1]},
    "moe": {"type": "moe", "experts": 8, "top_k": 1},
}
DENSE = "dense"
# Where the memory of a process lies moves its speed by some percent: each side starts some times.
LAUNCHES, ROUNDS, BLOCK_SECONDS = 4, 10, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trunk", choices=("eager", "compiled"), default="eager")
    given = parser.parse_args()
    print(machine())
    paths = Paths.model_validate({"trunk": given.trunk})
    configs = {DENSE: run_config(FFN + ADDED, {})} | {
        name: run_config(FFN, memory) for name, memory in MEMORIES.items()
    }
    seconds = pd.concat([launch(configs, paths) for _ in range(LAUNCHES)])
    table = ratios(seconds, DENSE).reset_index()
    table.insert(1, "runtime", [count_parameters(config).runtime for config in configs.values()])
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.3f"))


def launch(configs: Mapping[str, RunConfig], paths: Paths) -> pd.DataFrame:
    """CPU seconds a step, a row a round and a column a side."""
    from sweeps.ray_session import WORKERS  # imports Ray, which no side needs

    sides = {name: Side(partial(step, config, paths), WORKERS) for name, config in configs.items()}
    seconds = take_turns(sides, ROUNDS, BLOCK_SECONDS)
    for side in sides.values():
        side.close()
    return seconds


def run_config(ffn: int, memory: dict[str, Any]) -> RunConfig:
    anchor = {"layers": LAYERS, "d_model": WIDTH, "heads": 4, "head_dim": 32, "ffn": ffn}
    values = {
        "anchor": anchor,
        "tree": {"branching": [8, 8]},
        "memory": memory,
        "train": {"batch_size": ROWS, "tokens": 10**7},
    }
    return parse_config(values, "benchmark")


def step(config: RunConfig, paths: Paths) -> Step:
    folder = Path(tempfile.gettempdir())  # nothing is written before the first checkpoint
    runtime = Runtime(paths=paths)
    own = Trainer(config, runtime, folder, random_text(config, 4 * ROWS), lambda _: None)
    return partial(own.train_step, config.steps)


if __name__ == "__main__":
    main()
