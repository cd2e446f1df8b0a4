"""How long does a prompt wait for its blocks, in a tree of levels and in one flat bank?

    python benchmarks/serving.py --folder FOLDER --out benchmarks/serving.csv

Blocks have the sizes of the 160M model of arXiv 2510.02375 in bf16: widths (256, 64, 16), 36 MB a
prompt, in three levels or in one flat level of leaves. Prompts are the first halves of 1,000 test
windows of the default corpus, ten stretches of 100 that follow each other, routed by MiniLM's word
vectors through a tree of 16 by 16 by 16. Each level is a file of about half a GB, written in full
with random bytes; a cluster's block lies at the cluster modulo the blocks of the file, which is all
the same to a read that no cache serves.

Reads from disk are O_DIRECT, past the system's page cache (a cache of the host below a virtual disk
cannot be ruled out); `page cache` reads what that holds. A level in memory is used where it lies
and takes no time. A `cold` prompt fetches all its levels; in a `session` the levels whose cluster
is still that of the prompt before stay. All arrangements take turns at each prompt. `wait` is wall
time, `read_mb` what storage gave for a prompt by the kernel's count. Files are removed at the end.
"""

import argparse
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.config import DataConfig
from core.corpus.prepare import prepare_windows
from core.corpus.sources import fetch_minilm
from core.retrieval.tree import ClusterTree
from core.retrieval.word_vectors import WordVectorEmbedder

BYTES_A_WIDTH = 2 * 3 * 35 * 512  # bf16; 35 layers of model width 512
LEVELS, FLAT = (256, 64, 16), (336,)  # widths; of these sizes all blocks are multiples of a page
FILE = 512e6  # bytes of a level, about
BRANCHING, SAMPLE = (16, 16, 16), 40_000  # windows that the tree is fitted on
STRETCHES, STRETCH = 10, 100  # prompts
DISK, CACHED = os.O_DIRECT, 0  # flags of opening a file
# Bank and prompts: the widths of what is read, and from where.
ARRANGEMENTS = {
    ("flat", "cold"): (FLAT, DISK),
    ("flat", "session"): (FLAT, DISK),
    ("levels", "cold"): (LEVELS, DISK),
    ("levels", "session"): (LEVELS, DISK),
    ("levels, first in memory", "cold"): (LEVELS[1:], DISK),
    ("levels, first in memory", "session"): (LEVELS[1:], DISK),
    ("flat in page cache", "cold"): (FLAT, CACHED),
    ("levels, first in memory, others in page cache", "cold"): (LEVELS[1:], CACHED),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    path_nl = prompt_paths(given.results / "cache")
    changes_l = (np.diff(path_nl, axis=0) != 0).mean(0)
    print("share of prompts in another cluster than the one before, by level:", changes_l)
    with TemporaryDirectory(dir=given.folder) as folder:
        files = {width: written(Path(folder) / f"{width}", width) for width in (*LEVELS, *FLAT)}
        table = measure(files, path_nl)
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.2f"))


def prompt_paths(cache: Path) -> NDArray[np.int32]:
    """Paths [n, levels] of the prompts, in their order."""
    store, embedder = prepare_windows(DataConfig(), cache), WordVectorEmbedder(fetch_minilm(cache))
    train, test = store.split("train"), store.split("test")
    chosen = np.sort(np.random.default_rng(0).choice(len(train), SAMPLE, replace=False))
    vectors_nd = embedder.embed(train.key_text(int(window)) for window in chosen)
    tree = ClusterTree.fit(vectors_nd, BRANCHING, seed=0)
    starts = np.linspace(0, len(test) - STRETCH, STRETCHES).astype(int)
    prompts = [int(start) + i for start in starts for i in range(STRETCH)]
    return tree.route(embedder.embed(test.key_text(window, 0.5) for window in prompts))


def written(path: Path, width: int) -> Path:
    """A file of whole blocks, on the disk in full."""
    draw, block = np.random.default_rng(width), BYTES_A_WIDTH * width
    with path.open("wb") as file:
        for _ in range(round(FILE / block)):
            file.write(draw.bytes(block))
        os.fsync(file.fileno())
    return path


class Level:
    """One level's blocks, and the buffer that a fetch fills."""

    def __init__(self, path: Path, block: int, flags: int) -> None:
        self.block, self.blocks = block, path.stat().st_size // block
        self.file = os.open(path, os.O_RDONLY | flags)
        self.buffer = memoryview(mmap.mmap(-1, block))  # begins at a page, as O_DIRECT needs it
        self.held = -1  # cluster

    def fetch(self, cluster: int) -> None:
        """The block of a cluster into the buffer."""
        start, got = cluster % self.blocks * self.block, 0
        while got < self.block:
            got += os.preadv(self.file, [self.buffer[got:]], start + got)
        self.held = cluster


def measure(files: dict[int, Path], path_nl: NDArray[np.int32]) -> pd.DataFrame:
    """One row an arrangement."""
    opened = {
        key: [Level(files[width], BYTES_A_WIDTH * width, flags) for width in widths]
        for key, (widths, flags) in ARRANGEMENTS.items()
    }
    found: dict[tuple[str, str], list[tuple[float, int]]] = {key: [] for key in ARRANGEMENTS}
    for path in path_nl.tolist():
        for key, levels in opened.items():
            found[key].append(fetch(levels, path[-len(levels) :], keep=key[1] == "session"))
    return pd.DataFrame([summary(key, np.array(found[key])) for key in ARRANGEMENTS])


def fetch(levels: list[Level], path: Sequence[int], keep: bool) -> tuple[float, int]:
    """Wall seconds that one prompt waits, and bytes that storage gave."""
    before, started = storage_bytes(), time.perf_counter()
    for level, cluster in zip(levels, path, strict=True):
        if not (keep and level.held == cluster):
            level.fetch(cluster)
    return time.perf_counter() - started, storage_bytes() - before


def summary(key: tuple[str, str], costs_n2: NDArray[np.float64]) -> dict[str, object]:
    seconds_n, bytes_n = costs_n2.T
    p50, p99 = np.percentile(seconds_n, [50, 99])
    row = {"bank": key[0], "prompts": key[1], "wait_p50_ms": 1e3 * p50, "wait_p99_ms": 1e3 * p99}
    return {**row, "wait_mean_ms": 1e3 * seconds_n.mean(), "read_mb": bytes_n.mean() / 1e6}


def storage_bytes() -> int:
    """Bytes that this process had read from storage."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


if __name__ == "__main__":
    main()
