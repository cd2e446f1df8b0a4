"""How often does a prefix reach its document's cluster, by embedder and tree?

    python benchmarks/routing.py --out benchmarks/routing.csv

On a sample of the default corpus: trees fitted on train windows, agreement measured on validation
windows, mean over tree seeds. MiniLM embeds about 100 texts per CPU second; its vectors are cached.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.config import DataConfig
from core.corpus.prepare import prepare_windows
from core.corpus.sources import fetch_minilm
from core.corpus.windows import SplitWindows
from core.retrieval.embedders import Embedder
from core.retrieval.minilm import MiniLMEmbedder
from core.retrieval.report import agreement, chance_agreement
from core.retrieval.tfidf import TfidfEmbedder
from core.retrieval.tree import ClusterTree

TRAIN, HELD_OUT = 6_000, 2_000  # windows
TREES = ((4, 4), (16,), (8, 8), (16, 16))
SEEDS = 3
PREFIX = 0.5
Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cache = given.results / "cache"
    store = prepare_windows(DataConfig(), cache)
    train, held_out = store.split("train"), store.split("validation")
    embedders: dict[str, Embedder] = {f"tfidf {d}": TfidfEmbedder(d, 0) for d in (64, 128, 256)}
    embedders["minilm"] = MiniLMEmbedder(fetch_minilm(cache), cache / "vectors")
    rows = []
    for name, embedder in embedders.items():
        rows += measure(name, embedder, train, held_out)
        print(pd.DataFrame(rows[-len(TREES) * 2 :]).to_string(index=False), flush=True)
    pd.DataFrame(rows).to_csv(given.out, index=False)


def measure(
    name: str, embedder: Embedder, train: SplitWindows, held_out: SplitWindows
) -> list[dict[str, object]]:
    """One row a tree and level."""
    started = time.process_time()
    embedder.fit(train.key_texts())
    train_nd = embedder.embed(sample(train, TRAIN, None))
    document_nd = embedder.embed(sample(held_out, HELD_OUT, None))
    prefix_nd = embedder.embed(sample(held_out, HELD_OUT, PREFIX))
    seconds = time.process_time() - started
    return [
        row
        for tree in TREES
        for row in agree(name, tree, train_nd, document_nd, prefix_nd, seconds)
    ]


def sample(split: SplitWindows, count: int, prefix: float | None) -> list[str]:
    """Key texts of the same windows, whichever the key."""
    chosen = np.sort(np.random.default_rng(0).choice(len(split), count, replace=False))
    return [split.key_text(int(window), prefix) for window in chosen]


def agree(
    name: str,
    branching: tuple[int, ...],
    train_nd: Vectors,
    document_nd: Vectors,
    prefix_nd: Vectors,
    seconds: float,
) -> list[dict[str, object]]:
    trees = [ClusterTree.fit(train_nd, branching, seed) for seed in range(SEEDS)]
    found = [agreement(tree.route(prefix_nd), tree.route(document_nd)) for tree in trees]
    chance = [chance_agreement(tree.route(document_nd)) for tree in trees]
    return [
        {
            "embedder": name,
            "branching": "-".join(map(str, branching)),
            "level": level + 1,
            "agreement": round(float(np.mean([a[level] for a in found])), 4),
            "sd_over_trees": round(float(np.std([a[level] for a in found], ddof=1)), 4),
            "chance": round(float(np.mean([c[level] for c in chance])), 4),
            "embed_cpu_seconds": round(seconds, 1),
        }
        for level in range(len(branching))
    ]


if __name__ == "__main__":
    main()
