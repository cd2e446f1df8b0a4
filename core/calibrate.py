"""How fast this machine trains a run, from a few steps of it on random text."""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from core.accounting import training_flops_per_token, tree_clusters
from core.batches import Batches
from core.config import EvaluateConfig, Paths, RunConfig, Runtime
from core.dataset import Dataset, Rows, Windows
from core.gradients import add_gradients
from core.memory_config import MemoryConfig
from core.model import Model, resolved_paths
from core.trainer import Trainer

WORK = 1e11  # FLOP of a calibration: seconds on one core
STEPS = (5, 50)  # at least and at most
TRIED = 4  # gradients of each of the paths
MARGIN = 1.05  # by less no path beats the usual one: it may be noise, and machines should agree
ALL_PATHS = [
    Paths(precision=precision, attention=attention)
    for precision in ("bf16", "fp32")
    for attention in ("plain", "fused")
]
COMPILED_FROM = 300.0  # seconds of a run's gradients: the compiler's 5 to 10 are few percent of it
HELD_OUT = 2  # windows a split; they are not timed


def measure_rate(config: RunConfig, runtime: Runtime) -> float:
    """Training FLOP per second of wall time of one trial on `runtime.device`.

    Files of a bank lie beside the results while it trains.
    """
    runtime.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runtime.cache) as folder:
        short, text = _shortened(config), random_text(config, 4 * config.train.batch_size)
        record = Trainer(short, runtime, Path(folder), text, lambda _: None).run()
    return record.train_flops / record.wall_seconds


def measure_paths(config: RunConfig, device: str) -> Paths:
    """Those of the fastest gradients of `config`'s anchor, without its memory.

    The optimiser, whose step is the same on all, is left out: its first one takes a second of
    imports. The compiler, which takes some seconds before it saves any, is tried for long runs.
    """
    train = config.train.model_copy(
        update={"precision": "auto", "mode": "joint", "start": None, "tree_part": ()}
    )
    dense = config.model_copy(update={"memory": MemoryConfig(), "train": train})
    usual = resolved_paths(dense, device, Paths())

    def cost(paths: Paths) -> float:
        seconds = _gradient_seconds(dense, Runtime(device=device, paths=paths))
        return seconds if paths == usual else MARGIN * seconds

    costs = {paths: cost(paths) for paths in ALL_PATHS}
    best = min(ALL_PATHS, key=lambda paths: costs[paths])
    if config.steps * costs[best] < COMPILED_FROM:
        return best
    compiled = best.model_copy(update={"trunk": "compiled"})
    return compiled if _compiles(lambda: cost(compiled)) < costs[best] else best


def _compiles(cost: Callable[[], float]) -> float:
    """The cost; without end where this machine lacks what the compiler calls, or has another."""
    try:
        return cost()
    except Exception as error:  # of torch's compiler or of those below it: many kinds
        print(f"layers are not compiled here: {str(error).splitlines()[0]}")
        return math.inf


def _gradient_seconds(config: RunConfig, runtime: Runtime) -> float:
    """The least of a few; CPU time on a CPU, whose cores others may use too."""
    torch.set_num_threads(runtime.threads)
    clock = time.process_time if runtime.device == "cpu" else time.perf_counter
    seconds = []
    model = Model.on_paths(config, runtime.device, runtime.paths)
    text = random_text(config, config.train.batch_size)
    batch = Batches(config, text.train, runtime.device).at(0)
    for _ in range(TRIED):
        start = clock()
        add_gradients(model, batch, [])  # the loss is read, so a GPU has finished
        seconds.append(clock() - start)
    return min(seconds)


def _shortened(config: RunConfig) -> RunConfig:
    tokens = config.train.batch_size * config.data.seq_len
    least, most = STEPS
    steps = min(most, max(least, int(WORK / training_flops_per_token(config) / tokens)))
    train = config.train.model_copy(update={"tokens": steps * tokens})
    held_out = EvaluateConfig(validation_windows=HELD_OUT, test_windows=HELD_OUT)
    return config.model_copy(update={"train": train, "evaluate": held_out})


def random_text(config: RunConfig, n: int) -> Dataset:
    """`n` full rows of random tokens, whose leaves are distinct where there are enough."""
    draw, clusters = np.random.default_rng(0), tree_clusters(config.tree.branching)
    vocabulary, width = config.data.vocab_size, config.data.seq_len + 1

    def tokens(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
        return draw.integers(1, vocabulary, (n, width)).astype(np.uint16)

    def paths(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        leaf_n = draw.permutation(n) * max(1, clusters[-1] // n) % clusters[-1]
        return np.stack([leaf_n * c // clusters[-1] for c in clusters], axis=1).astype(np.int32)

    def held_out(n: int) -> Windows:
        length_n = np.full(n, width, np.int32)
        source_n = np.zeros(n, np.uint8)
        return Windows(tokens(n), length_n, length_n // 2, paths(n), paths(n), source_n)

    return Dataset(
        train=Rows(tokens(n), np.zeros((n, width), np.uint8), paths(n)),
        validation=held_out(HELD_OUT),
        test=held_out(HELD_OUT),
        token_bytes_v=np.ones(vocabulary, np.int32),
        clusters=clusters,
        train_tokens=n * config.data.seq_len,
        agreement=tuple(1.0 for _ in clusters),
        sources=("random",),
        digest="",
    )
