"""How fast is training on a GPU: dense, with a memory wherever its bank lies, beside nanoGPT?

    python benchmarks/gpu.py --folder FOLDER --out benchmarks

The 160M anchor of arXiv 2510.02375 and its fetched size (widths 256, 64, 16 in each layer), 16 rows
of 1,024 tokens, each with blocks of its own at every level, bf16 and fused attention; layers as
torch runs them and compiled. `dense` is as wide as anchor and memory together, nanoGPT (peers.py)
of as many parameters within 1 %, in its default bf16 autocast, without and with its compiling.
The bank has 0.7e9 parameters: bank_size.py tells whether a step knows that number. Wall time, sides
in turns in one process.

gpu_step.csv: tokens/s; `share` of the measured bf16 product rate; `ratio` of a side's time to that
of `dense compiled`, median and quartiles over rounds. gpu_fetch.csv: the fetch of a batch alone,
from the GPU, from pinned host memory and from a file in FOLDER. gpu_trials.csv: tokens/s of all
together when 1, 2, 4 and 8 processes train a 1M anchor each on one GPU.

--smoke does the same with small sizes on whatever there is, to see that it runs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from peers import PeerStep, Shape, nanogpt
from sides import Side, Step, gpu_seconds, machine, ratios, take_turns, timer

from core.accounting import count_parameters, training_flops_per_token
from core.calibrate import random_text
from core.config import Paths, RunConfig, Runtime, parse_config
from core.trainer import Trainer

PLACES = ("device", "host", "disk")
REFERENCE = "dense compiled"
TRIALS = (1, 2, 4, 8)
ROUNDS, BLOCK_SECONDS, FETCHES = 7, 1.0, 10


class Sizes(NamedTuple):
    anchor: dict[str, int]
    widths: list[int]  # of a tree with few blocks a level
    peer: tuple[int, int, int]  # layers, width, heads
    rows: int
    context: int
    vocabulary: int
    small: dict[str, int]  # the anchor of a small trial


FULL = Sizes(
    anchor={"layers": 35, "d_model": 512, "heads": 12, "head_dim": 32, "ffn": 2048},
    widths=[256, 64, 16],
    peer=(22, 768, 12),
    rows=16,
    context=1024,
    vocabulary=50_304,
    small={"layers": 5, "d_model": 128, "heads": 4, "head_dim": 32, "ffn": 344},
)
SMOKE = Sizes(
    anchor={"layers": 2, "d_model": 64, "heads": 2, "head_dim": 32, "ffn": 176},
    widths=[8, 4, 2],
    peer=(2, 64, 2),
    rows=4,
    context=64,
    vocabulary=512,
    small={"layers": 2, "d_model": 32, "heads": 2, "head_dim": 16, "ffn": 88},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.smoke:
        parser.error("no CUDA machine here; --smoke shows that it runs")
    sizes = SMOKE if given.smoke else FULL
    rate = product_rate(device)
    print(f"{machine()}; bf16 products {rate / 1e12:.3g} TFLOP/s")
    given.out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "gpu_step": lambda: steps(sizes, device, given.folder, rate),
        "gpu_fetch": lambda: fetches(sizes, device, given.folder),
        "gpu_trials": lambda: trials(sizes, device),
    }
    for name, make in tables.items():
        table = make()
        table.to_csv(given.out / f"{name}.csv", index=False, float_format="%.4g")
        print(table.to_string(index=False, float_format="%.3g"), flush=True)


def steps(sizes: Sizes, device: str, folder: Path, rate: float) -> pd.DataFrame:
    """A row a side: whole training steps."""
    dense, memory = dense_config(sizes), memory_config(sizes)
    made: dict[str, tuple[Step, RunConfig]] = {}
    for trunk in ("eager", "compiled"):
        made[f"dense {trunk}"] = our_step(dense, device, trunk, "device", folder), dense
    for place in PLACES:
        step = our_step(memory, device, "compiled", place, folder)
        made[f"ffn, bank on {place}"] = step, memory
    for compiled in (False, True):
        name = "nanogpt compiled" if compiled else "nanogpt"
        made[name] = peer_step(sizes, device, compiled), dense
    sides = {name: timer(step, gpu_seconds) for name, (step, _) in made.items()}
    seconds = take_turns(sides, ROUNDS, BLOCK_SECONDS)
    table = ratios(seconds, REFERENCE).rename(columns={"cpu_ms": "ms"}).reset_index()
    table["tokens_a_second"] = sizes.rows * sizes.context / table["ms"] * 1e3
    flops = [training_flops_per_token(config) for _, config in made.values()]
    table["share"] = table["tokens_a_second"] * flops / rate  # nanoGPT's taken to be dense's
    table["runtime"] = [count_parameters(config).runtime for _, config in made.values()]
    return table


def fetches(sizes: Sizes, device: str, folder: Path) -> pd.DataFrame:
    """A row a place: the blocks of one batch, brought to the anchor."""
    rows = []
    for place in PLACES:
        own = trainer(memory_config(sizes), device, "eager", place, folder)
        paths = [own.batches.at(step).path_bl for step in range(FETCHES + 1)]
        own.model.fetch(paths[0])  # the first of a process takes longer
        start = gpu_seconds()
        fetched = [own.model.fetch(path) for path in paths[1:]]
        seconds = (gpu_seconds() - start) / FETCHES
        size = sum(fetch.rows.nbytes for fetch in fetched[-1])
        rows.append((place, size / 1e6, 1e3 * seconds, size / seconds / 1e9))
    return pd.DataFrame(rows, columns=["bank", "megabytes", "ms", "gb_a_second"])


def trials(sizes: Sizes, device: str) -> pd.DataFrame:
    """A row a number of processes that train side by side."""
    config = run_config(sizes.small, {}, sizes)
    rows = []
    for count in TRIALS:
        sides = [Side(partial(small_step, config, device), {}) for _ in range(count)]
        number = max(5, round(BLOCK_SECONDS / max(side(5) for side in sides)))  # CPU time: a guess
        start = time.perf_counter()
        for side in sides:
            side.begin(number)
        for side in sides:
            side.end()
        tokens = count * number * sizes.rows * sizes.context
        rows.append((count, tokens / (time.perf_counter() - start)))
        for side in sides:
            side.close()
    table = pd.DataFrame(rows, columns=["trials", "tokens_a_second"])
    return table.assign(ratio=table["tokens_a_second"] / table["tokens_a_second"].iloc[0])


def small_step(config: RunConfig, device: str) -> Step:
    return our_step(config, device, "eager", "device", Path(tempfile.gettempdir()))


def our_step(config: RunConfig, device: str, trunk: str, place: str, folder: Path) -> Step:
    own = trainer(config, device, trunk, place, folder)
    return partial(own.train_step, config.steps)


def trainer(config: RunConfig, device: str, trunk: str, place: str, folder: Path) -> Trainer:
    paths = Paths.model_validate({"precision": "bf16", "attention": "fused", "trunk": trunk})
    runtime = Runtime.model_validate({"device": device, "bank": place, "paths": paths})
    own = Trainer(config, runtime, folder, random_text(config, 512), lambda _: None)
    if own.model.bank:
        own.model.bank.roll_back(0)
    return own


def peer_step(sizes: Sizes, device: str, compiled: bool) -> Step:
    model, loss = nanogpt(Shape(*sizes.peer, sizes.context, sizes.vocabulary))
    model.to(device)
    if compiled:
        model.compile()
    step = PeerStep(model, loss, 1e-3, bf16=True)
    rows_bt = torch.randint(1, sizes.vocabulary, (sizes.rows, sizes.context + 1), device=device)
    return lambda: step(rows_bt[:, :-1], rows_bt[:, 1:])


def dense_config(sizes: Sizes) -> RunConfig:
    """As many runtime parameters as anchor and memory have together."""
    anchor = {**sizes.anchor, "ffn": sizes.anchor["ffn"] + sum(sizes.widths)}
    return run_config(anchor, {}, sizes)


def memory_config(sizes: Sizes) -> RunConfig:
    return run_config(sizes.anchor, {"type": "ffn", "widths": sizes.widths}, sizes)


def run_config(anchor: dict[str, int], memory: dict[str, Any], sizes: Sizes) -> RunConfig:
    values = {
        "anchor": anchor,
        "data": {"vocab_size": sizes.vocabulary, "seq_len": sizes.context},
        "tree": {"branching": [16, 4, 4]},
        "memory": memory,
        "train": {"batch_size": sizes.rows, "tokens": 10**9},
    }
    return parse_config(values, "benchmark")


def product_rate(device: str) -> float:
    """bf16 FLOP per second of a large product, the best of several."""
    n = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=device) for _ in range(2))
    seconds = timer(lambda: a @ b, gpu_seconds)
    return 2 * n**3 / min(seconds(5) for _ in range(10))


if __name__ == "__main__":
    main()
