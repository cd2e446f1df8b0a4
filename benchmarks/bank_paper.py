"""Does a bank of arXiv 2510.02375's largest count train on a machine that could not hold it?

    python benchmarks/bank_paper.py --folder FOLDER --out benchmarks/bank_paper.csv

A 1M-parameter anchor (5x128, 16 rows of 128 tokens) with one level of ffn blocks of 491,520
parameters on disk: 21.1e9 parameters beside 1e8, kept in fp32 and in bf16. Each bank has a process
of its own; the processes take turns, so that what else the machine does falls on all alike. The
text has 256 documents. In the first 16 steps rows come into being, in the large bank 16 a step;
then follow rounds over rows that are there. Files lie in FOLDER, are sparse and are removed at the
end. They stay in the page cache: reading a cold disk is another benchmark's matter.

`peak_gb` is the process's resident memory at its peak (ru_maxrss), the libraries' code included.
Files are read and written, not mapped, so the page cache is no part of it. `needed_gb` is what a
dry run says instead, `full_gb` the file when every block has been trained.
"""

import argparse
import multiprocessing
import os
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.bank_size import run_config, steps
from core.accounting import count_parameters, full_bank_disk_bytes
from core.calibrate import random_text
from core.config import RunConfig, Runtime
from core.trainer import Trainer
from sweeps.needs import memory_needed

WIDTH, BLOCK = 256, 491_520  # 5 layers x 3 x width x d 128
BANKS = [(size, kept) for kept in ("fp32", "bf16") for size in (1e8, 21.1e9)]
DOCUMENTS = 256
FIRST, STEPS, ROUNDS = 16, 4, 8
GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with TemporaryDirectory(dir=given.folder) as folder:
        table = measure(Path(folder))
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False, float_format="%.3f"))


def measure(folder: Path) -> pd.DataFrame:
    """One row a bank: seconds a step while rows come into being and after, memory and disk."""
    configs = [config(size, kept) for size, kept in BANKS]
    train = [start(own, folder / str(number)) for number, own in enumerate(configs)]
    first = [own(FIRST) for own in train]
    rounds = [[own(STEPS) for own in train] for _ in range(ROUNDS)]
    peaks = [own(0)[0] for own in train]
    rows = []
    for number, (_, kept) in enumerate(BANKS):
        later = np.array([each[number] for each in rounds])
        small = np.array([each[BANKS.index((1e8, kept))] for each in rounds])
        low, middle, high = np.percentile(later[:, 0] / small[:, 0], [25, 50, 75])
        rows.append(
            {
                "parameters": count_parameters(configs[number]).bank,
                "kept": kept,
                "first_cpu_s": first[number][0],
                "cpu_s": np.median(later[:, 0]),
                "wall_s": np.median(later[:, 1]),
                "ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
                "peak_gb": peaks[number] / GB,
                "needed_gb": memory_needed(configs[number], "disk") / GB,
                "file_gb": file(folder / str(number)).st_size / GB,
                "on_disk_gb": 512 * file(folder / str(number)).st_blocks / GB,
                "full_gb": full_bank_disk_bytes(configs[number]) / GB,
            }
        )
    return pd.DataFrame(rows)


def config(size: float, kept: str) -> RunConfig:
    return run_config(round(size / BLOCK), widths=[WIDTH], weights=kept, moments=kept)


def file(folder: Path) -> os.stat_result:
    return (folder / "bank" / "level0" / "rows").stat()


def start(own: RunConfig, folder: Path) -> Callable[[int], tuple[float, float]]:
    """A process that trains as many steps as it is asked for: CPU and wall seconds of a step.

    Asked for none, it ends and gives its peak of resident bytes.
    """
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=serve, args=(there, own, folder)).start()

    def ask(count: int) -> tuple[float, float]:
        here.send(count)
        answer: tuple[float, float] = here.recv()
        return answer

    return ask


def serve(asked: Connection, own: RunConfig, folder: Path) -> None:
    text = random_text(own, DOCUMENTS)
    trainer = Trainer(own, Runtime(bank="disk"), folder, text, lambda _: None)
    assert trainer.model.bank
    trainer.model.bank.roll_back(0)
    while count := asked.recv():
        asked.send(steps(trainer, count))
    asked.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, 0.0))


if __name__ == "__main__":
    main()
