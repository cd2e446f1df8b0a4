"""Does a training step know how large the bank is?

    python benchmarks/bank_size.py --folder FOLDER --out benchmarks/bank_size.csv
    python benchmarks/bank_size.py --device cuda --out benchmarks/gpu_bank_size.csv

The whole step of a 1M-parameter anchor (5x128, 16 rows of 128 tokens, bf16 where the machine has
it) with one level of ffn blocks of 7,680 parameters, of which each step fetches 16 distinct ones.
Sizes take turns within one process, so that what else the machine does falls on all alike; ratios
are to the bank of 1e7 parameters of the same storage. Files lie in FOLDER and are sparse: rows come
into being as steps reach them, so this is the cost of addressing, not of a cold disk. `resident` is
what the process holds after its steps with that bank. 1e5 parameters have 13 blocks, all fetched.
On a GPU of 80 GB banks lie in its memory and ratios are of wall time, elsewhere of CPU time.
"""

import argparse
import gc
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sides import gpu_seconds

from core.accounting import count_parameters
from core.calibrate import random_text
from core.config import RunConfig, Runtime, parse_config
from core.trainer import Trainer

BLOCK = 7_680  # 5 layers x 3 x width 4 x d 128
SIZES = {
    "memory": (1e5, 1e7, 1e8, 1e9),
    "disk": (1e5, 1e7, 1e8, 1e9, 1e10),
    "cuda": (1e5, 1e7, 1e8, 1e9, 5e9),
}
REFERENCE = 1e7
ROWS = 16
WARM_UP, STEPS, ROUNDS = 5, 5, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    storages = ("cuda",) if given.device == "cuda" else ("memory", "disk")
    table = pd.concat([measure(storage, given.folder) for storage in storages], ignore_index=True)
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False, float_format="%.3f"))


def measure(storage: str, folder: Path) -> pd.DataFrame:
    """One row a size: median CPU and wall milliseconds a step, and ratios over rounds."""
    trainers, resident = {}, {}
    for size in SIZES[storage]:
        trainers[size] = trainer(storage, size, folder)
        steps(trainers[size], WARM_UP)
        resident[size] = resident_bytes()
    there = list(trainers.items())
    orders = [there, there[::-1]] * (ROUNDS // 2)  # no size always follows the same one
    rounds = [{size: steps(own, STEPS) for size, own in order} for order in orders]
    rows = []
    for size in SIZES[storage]:
        cpu, wall = np.median([own[size] for own in rounds], axis=0)
        clock = 1 if storage == "cuda" else 0
        ratio = [own[size][clock] / own[REFERENCE][clock] for own in rounds]
        low, middle, high = np.percentile(ratio, [25, 50, 75])
        rows.append(
            {
                "storage": storage,
                "parameters": size,
                "cpu_ms": 1e3 * cpu,
                "wall_ms": 1e3 * wall,
                "ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
                "resident_gb": resident[size] / 1e9,
            }
        )
    trainers.clear()
    gc.collect()
    return pd.DataFrame(rows)


def trainer(storage: str, size: float, folder: Path) -> Trainer:
    config = run_config(max(2, int(size // BLOCK)))
    assert count_parameters(config).bank <= size * 1.05
    runtime = Runtime(
        device="cuda" if storage == "cuda" else "cpu",
        bank="disk" if storage == "disk" else "device",
    )
    own = Trainer(
        config, runtime, folder / f"{size:.0e}", random_text(config, 256 * ROWS), lambda _: None
    )
    assert own.model.bank
    own.model.bank.roll_back(0)
    return own


def run_config(blocks: int, **memory: object) -> RunConfig:
    """Of one level; `memory` is what differs from blocks of width 4."""
    anchor = {"layers": 5, "d_model": 128, "heads": 4, "head_dim": 32, "ffn": 336}
    values = {
        "anchor": anchor,
        "tree": {"branching": [blocks]},
        "memory": {"type": "ffn", "widths": [4], "lr": 1e-3, **memory},
        "train": {"batch_size": ROWS, "tokens": 10**7},
    }
    return parse_config(values, "benchmark")


def steps(own: Trainer, count: int) -> tuple[float, float]:
    """CPU and wall seconds of a step."""
    cpu, wall = time.process_time(), gpu_seconds()
    for _ in range(count):
        own.train_step(own.config.steps)
    return (time.process_time() - cpu) / count, (gpu_seconds() - wall) / count


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
