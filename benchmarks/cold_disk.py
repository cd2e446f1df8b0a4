"""How long does a training step wait for a bank on a cold disk?

    python benchmarks/cold_disk.py --folder FOLDER --out benchmarks/cold_disk.csv

A bank in a file of 32 GB (--gigabytes) in FOLDER, every row of it written with random moments, as
after a full pass; removed at the end. A step of a 1M-parameter anchor (5x128, 16 rows of tokens)
fetches 16 blocks of 491,520 parameters, 94 MB in fp32, that no step of its round fetched before,
and writes them back. Before each round everything is written out and the page cache is told to
forget the file (POSIX_FADV_DONTNEED); a cache of the host below a virtual disk cannot be ruled out.
Rows of more tokens make computing longer and leave reading as it is. Lengths, and reading ahead and
when needed, take turns.

Seconds a step, medians over rounds: `step` of wall time; `read` and `write` that the table's thread
is busy, `wait_read` and `wait_write` that the step stands still for it, `compute` the rest of the
step. `hidden` is the share of `read` that is not waited for, with its range over rounds.
"""

import argparse
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from benchmarks.bank_size import run_config, steps
from core.calibrate import random_text
from core.config import RunConfig, Runtime
from core.memory.disk import DiskTable
from core.memory.row_format import Rows
from core.trainer import Trainer

WIDTH, BLOCK = 256, 491_520  # 5 layers x 3 x width x d 128
ROW = 8 + 12 * BLOCK  # bytes
LENGTHS = (16, 32, 128)  # tokens of a row
STEPS, ROUNDS = 6, 3
SPARE = 15e9  # bytes that are left free on the disk


class Stopwatch:
    """A table's thread, with the seconds that each kind of work takes and is waited for."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.seconds: Counter[str] = Counter()

    def submit(self, work: Callable[..., Any], *given: Any) -> "Awaited":
        name = work.__name__
        future = self.pool.submit(self.time, f"busy{name}", work, *given)
        return Awaited(lambda: self.time(f"wait{name}", future.result))

    def time(self, name: str, work: Callable[..., Any], *given: Any) -> Any:
        started = time.perf_counter()
        try:
            return work(*given)
        finally:
            self.seconds[name] += time.perf_counter() - started


class Awaited:
    """A future whose waiting is timed."""

    def __init__(self, result: Callable[[], Any]) -> None:
        self.result = result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=32)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if shutil.disk_usage(given.folder).free < 1e9 * given.gigabytes + SPARE:
        parser.error(f"{given.folder} has no room for the file and {SPARE / 1e9:.0f} GB beside it")
    with TemporaryDirectory(dir=given.folder) as folder:
        table = measure(Path(folder), int(1e9 * given.gigabytes / ROW))
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False, float_format="%.3f"))


def measure(folder: Path, blocks: int) -> pd.DataFrame:
    """One row a length and way of reading."""
    trainers = {length: trainer(folder, blocks, length) for length in LENGTHS}
    fill(bank_table(trainers[LENGTHS[0]]), blocks)
    rounds = [
        {"tokens": length, "read_ahead": ahead} | one_round(own, ahead)
        for _ in range(ROUNDS)
        for length, own in trainers.items()
        for ahead in (True, False)
    ]
    by = pd.DataFrame(rounds).groupby(["tokens", "read_ahead"])
    hidden = by["hidden"]
    table = by.median().assign(hidden_low=hidden.min(), hidden_high=hidden.max())
    return table.reset_index().assign(file_gb=blocks * ROW / 1e9)


def trainer(folder: Path, blocks: int, length: int) -> Trainer:
    config = run_config(blocks, widths=[WIDTH])
    data = config.data.model_copy(update={"seq_len": length})
    config = RunConfig.model_validate(config.model_copy(update={"data": data}).model_dump())
    text = random_text(config, blocks)
    own = Trainer(config, Runtime(bank="disk"), folder, text, lambda _: None)
    table = bank_table(own)
    table.worker = Stopwatch(table.worker)  # type: ignore[assignment]
    return own


def bank_table(own: Trainer) -> DiskTable:
    assert own.model.bank
    table = own.model.bank.tables[0]
    assert isinstance(table, DiskTable)
    return table


def fill(table: DiskTable, blocks: int) -> None:
    """Write every row, as if it had been trained."""
    drawn = 1e-4 * torch.randn(16, BLOCK, generator=torch.Generator().manual_seed(0))
    for ids in torch.arange(blocks).split(16):
        first = drawn[: len(ids)] * (1 + ids[:, None] / blocks)  # no two rows alike
        steps_u = torch.ones(len(ids), dtype=torch.int64)
        table.write(ids, Rows(100 * first, first, first.square(), steps_u))
    table.checkpoint(0, 0)  # waits until all is written


def one_round(own: Trainer, ahead: bool) -> dict[str, float]:
    """Seconds a step on a cold disk; the first step, whose rows were asked for before, is not
    counted."""
    table = bank_table(own)
    os.fsync(table.file)
    os.posix_fadvise(table.file, 0, 0, os.POSIX_FADV_DONTNEED)
    later = table.read_ahead if ahead else lambda _: None
    with patch.object(table, "read_ahead", later):
        steps(own, 1)
        watch: Any = table.worker
        watch.seconds.clear()
        _, wall = steps(own, STEPS)
    spent = {name: seconds / STEPS for name, seconds in watch.seconds.items()}
    read, wait = spent["busy_load"], spent["wait_load"]
    wait_write = spent.get("wait_store", 0.0)
    return {
        "step": wall,
        "read": read,
        "write": spent["busy_store"],
        "compute": wall - wait - wait_write,
        "wait_read": wait,
        "wait_write": wait_write,
        "hidden": 1 - wait / read,
    }


if __name__ == "__main__":
    main()
