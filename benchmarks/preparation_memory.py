"""How much memory does the preparation of a large corpus take?

    python benchmarks/preparation_memory.py --folder FOLDER --out benchmarks/preparation_memory.csv

Documents have the lengths of the default corpus's, their words are drawn from all its words, so
that none is like another. Each corpus is prepared in a process of its own, into files in FOLDER
that are removed at the end. `anonymous` is the peak of what the process holds itself, sampled five
times a second; `resident` has the pages of mapped files besides, which the system takes back when
it needs them. Some twenty minutes of a core and 5 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from core.config import DataConfig, TreeConfig
from core.corpus.prepare import prepare_windows
from core.prepare import prepare

DOCUMENTS = (50_000, 100_000, 1_000_000)
EMBEDDERS = ("tfidf", "minilm-words")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--corpus", type=Path, help="measure this one, and print JSON")
    given = parser.parse_args()
    if given.corpus:
        print(json.dumps(measure(given.corpus, given.folder)))
        return
    rows = [in_own_process(n, given.folder, given.results / "cache") for n in DOCUMENTS]
    table = pd.DataFrame(rows)
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.to_string(index=False))


def in_own_process(documents: int, parent: Path, cache: Path) -> dict[str, float]:
    with TemporaryDirectory(dir=parent) as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, documents, cache)
        (Path(folder) / "packages").symlink_to((cache / "packages").resolve())
        command = [sys.executable, __file__, "--folder", folder, "--corpus", str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {"documents": documents, **found}


def write_corpus(path: Path, documents: int, cache: Path) -> None:
    """One JSON line a document; words come from texts of the default corpus, without order."""
    train = prepare_windows(DataConfig(), cache).split("train")
    texts = [train.key_text(window).split() for window in range(0, len(train), 20)]
    words = np.array([word for text in texts for word in text])
    windows_d = np.bincount(train.document)  # of each document
    draw = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(documents):
            length = (
                len(texts[draw.integers(len(texts))]) * windows_d[draw.integers(len(windows_d))]
            )
            file.write(json.dumps({"text": " ".join(draw.choice(words, max(length, 5)))}) + "\n")


def measure(corpus: Path, cache: Path) -> dict[str, float]:
    """Peaks in GB and CPU seconds, of the windows and then of each embedder's tree."""
    data, found = DataConfig(corpus=(str(corpus),)), {"text_mb": corpus.stat().st_size / 1e6}
    for name in ("windows", *EMBEDDERS):
        watch, started = Watch(), time.process_time()
        if name == "windows":
            prepare_windows(data, cache)
        else:
            prepare(data, TreeConfig.model_validate({"embedder": name}), cache)
        found[f"{name}_anonymous_gb"] = watch.peak() / 1e9
        found[f"{name}_cpu_s"] = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**found, "resident_gb": peak / 1e9}


class Watch:
    """The peak of this process's anonymous memory, from now on."""

    def __init__(self) -> None:
        self.highest, self.done = 0, threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.done.wait(0.2):
            self.highest = max(self.highest, anonymous_bytes())

    def peak(self) -> int:
        self.done.set()
        self.thread.join()
        return self.highest


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
