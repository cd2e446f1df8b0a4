"""What the speed benchmarks share: sides that take turns, ratios with their spread, the machine.

Machines are shared, so sides take turns in short blocks, CPU time is read, and a ratio is taken
within each round before the median over rounds.
"""

import gc
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import torch

Step = Callable[[], object]  # one training step
Make = Callable[[], Step]  # builds a side; picklable where the side has a process of its own
Timer = Callable[[int], float]  # runs so many steps; seconds of one, of CPU time unless said

GLIBC = "MALLOC_"  # variables of the allocator
WARM_UP = 3


def timer(step: Step, clock: Callable[[], float] = time.process_time) -> Timer:
    """A side in this process, warmed up."""

    def seconds(count: int) -> float:
        start = clock()
        for _ in range(count):
            step()
        return (clock() - start) / count

    seconds(WARM_UP)
    return seconds


class Side:
    """A side in a process of its own, which rests while others run.

    `environment` is added to its own, which is rid of glibc's allocator settings first.
    """

    def __init__(self, make: Make, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        with set_environment(environment):
            self.process.start()

    def __call__(self, count: int) -> float:
        self.begin(count)
        return self.end()

    def begin(self, count: int) -> None:
        self.pipe.send(count)

    def end(self) -> float:
        seconds: float = self.pipe.recv()
        return seconds

    def close(self) -> None:
        self.pipe.send(0)
        self.process.join()


def _serve(make: Make, pipe: Connection) -> None:
    torch.set_num_threads(1)
    seconds = timer(make())
    while count := pipe.recv():
        pipe.send(seconds(count))


@contextmanager
def set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(GLIBC)]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def take_turns(sides: Mapping[str, Timer], rounds: int, block_seconds: float) -> pd.DataFrame:
    """CPU seconds a step, a row a round and a column a side; a block takes about so long."""
    steps = {name: max(1, round(block_seconds / seconds(1))) for name, seconds in sides.items()}
    gc.collect()
    return pd.DataFrame(
        [{name: own(steps[name]) for name, own in sides.items()} for _ in range(rounds)]
    )


def ratios(seconds: pd.DataFrame, reference: str) -> pd.DataFrame:
    """A row a side: median CPU milliseconds, and how often slower than `reference`, median and
    quartiles over rounds.
    """
    relative = seconds.div(seconds[reference], axis=0)
    quartiles = relative.quantile([0.5, 0.25, 0.75])
    return pd.DataFrame(
        {
            "cpu_ms": 1e3 * seconds.median(),
            "ratio": quartiles.loc[0.5],
            "ratio_low": quartiles.loc[0.25],
            "ratio_high": quartiles.loc[0.75],
        }
    ).rename_axis("side")


def gpu_seconds() -> float:
    """Wall time at which a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> str:
    """Processor, GPU, cores, torch: one line."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    bf16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{names[0] if names else platform.processor()}{gpu}, {os.cpu_count()} cores, "
        f"avx512_bf16 {bf16}, torch {torch.__version__}, {platform.libc_ver()[1]} libc"
    )


def product_rate(dtype: torch.dtype) -> float:
    """FLOP per CPU second of a large product on one thread, the best of several."""
    a, b = torch.randn(2048, 512, dtype=dtype), torch.randn(2048, 512, dtype=dtype)
    seconds = timer(lambda: torch.nn.functional.linear(a, b))
    return 2 * 2048 * 512 * 2048 / min(seconds(5) for _ in range(10))
