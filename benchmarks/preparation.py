"""How fast is text prepared, and how good are its clusters, beside plain scikit-learn?

    OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 \\
        python benchmarks/preparation.py --out benchmarks/preparation.csv

`ours`: each stage of the default corpus once, with all of it as train text; MB are of cleaned UTF-8
text, an item is a document, or a window once there are windows. `side by side`: 30,000 windows, in
turns over three rounds, against TfidfVectorizer and TruncatedSVD as they come, and KMeans as it
comes in every node of the tree; `ratio` is the peer's CPU time by ours, over rounds. Inertia is the
mean squared distance of unit vectors to the mean of their leaf, `largest` the largest leaf's size
by the mean size, each the mean over ten seeds and inertia with its range; `peer_` are
scikit-learn's, `whole_` those of our k-means where each step sees every vector, not a sample;
`inertia_gap` is the 95 % interval (Welch) of ours minus scikit-learn's. All trees split the same
vectors.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ttest_ind
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from core.config import DataConfig, TreeConfig
from core.corpus.batches import batched
from core.corpus.clean import clean_documents
from core.corpus.document import Document
from core.corpus.duplicates import group_near_duplicates
from core.corpus.packing import pack_rows
from core.corpus.sources import fetch_minilm, open_sources
from core.corpus.tokenizer import train_tokenizer
from core.corpus.windows import SplitWindows, SplitWriter, lm_text
from core.retrieval.kmeans import Vectors, kmeans, nearest
from core.retrieval.tfidf import TfidfEmbedder
from core.retrieval.tree import ClusterTree
from core.retrieval.word_vectors import WordVectorEmbedder

DATA, TREE = DataConfig(), TreeConfig()
SUBSET, ROUNDS, SEEDS = 30_000, 3, range(10)
BRANCHINGS = (TREE.branching, (16, 16))
T = TypeVar("T")
Labels = NDArray[np.integer]
Work = Callable[[], NDArray[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(given.results / "cache", Path(folder))
        windows = stages.windows()
        stages.rows(windows)
        chosen = np.sort(np.random.default_rng(0).choice(len(windows), SUBSET, replace=False))
        texts = [windows.key_text(int(window)) for window in chosen]
    table = pd.concat([pd.DataFrame(stages.measured), side_by_side(texts)])
    table.to_csv(given.out, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.3f"))


class Stages:
    """The stages of preparation in turn, each timed."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self.cache, self.folder = cache, folder
        self.measured: list[dict[str, object]] = []
        self.megabytes = 0.0

    def windows(self) -> SplitWindows:
        """From the packages to windows on disk."""
        documents, seconds = timed(lambda: list(clean_documents(self._documents())))
        n = len(documents)
        self.megabytes = sum(len(document.text.encode()) for document in documents) / 1e6
        self._note("reading and cleaning", n, seconds)
        texts = [document.text for document in documents]
        grouping = partial(group_near_duplicates, texts, DATA.duplicate_jaccard, self.folder)
        self._note("grouping near-duplicates", n, timed(grouping)[1])
        lm_texts = (lm_text(document.title, document.text) for document in documents)
        tokenizer, seconds = timed(lambda: train_tokenizer(lm_texts, DATA.vocab_size))
        self._note("training the tokenizer", n, seconds)
        train = self.folder / "train"

        def cut() -> None:
            with SplitWriter(train, tokenizer, DATA.seq_len, DATA.min_tokens) as writer:
                for batch in batched(documents, 1_000):
                    writer.append([(title, text, 0) for title, text, _ in batch])

        self._note("tokenising and cutting windows", n, timed(cut)[1])
        return SplitWindows.open(train, tokenizer)

    def rows(self, windows: SplitWindows) -> None:
        """From windows to packed rows."""
        n, tfidf = len(windows), TfidfEmbedder(TREE.dimensions, TREE.seed)
        words = WordVectorEmbedder(fetch_minilm(self.cache))
        self._note("fitting TF-IDF and SVD", n, timed(lambda: tfidf.fit(windows.key_texts()))[1])
        vectors_nd, seconds = timed(lambda: tfidf.embed(windows.key_texts()))
        self._note("embedding by TF-IDF and SVD", n, seconds)
        _, seconds = timed(lambda: words.embed(windows.key_texts()))
        self._note("embedding by word vectors", n, seconds)
        growing = partial(ClusterTree.fit, vectors_nd, TREE.branching, TREE.seed)
        path_nl, seconds = timed(lambda: growing().route(vectors_nd))
        self._note("clustering and routing", n, seconds)
        flat = (np.diff(windows.offsets), path_nl, windows.offsets, windows.tokens)
        _, seconds = timed(lambda: pack_rows(*flat, DATA.seq_len, TREE.seed))
        self._note("packing", n, seconds)

    def _documents(self) -> Iterator[Document]:
        for source in open_sources(DATA.corpus):
            yield from source.documents(self.cache)

    def _note(self, stage: str, items: int, seconds: float) -> None:
        row = {"part": "ours", "stage": stage, "items": items, "cpu_s": seconds}
        row |= {"items_per_s": items / seconds, "mb_per_s": self.megabytes / seconds}
        self.measured.append(row)
        print(f"{stage}: {seconds:.1f} CPU seconds", flush=True)


def side_by_side(texts: list[str]) -> pd.DataFrame:
    """One row a task: CPU seconds of both sides, their ratio over rounds, quality of clusters."""
    vectors_nd, rows = embed(texts), []
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    tasks: dict[str, tuple[Work, Work]] = {
        f"clustering {branching}": (
            partial(tree_leaves, vectors_nd, branching),
            partial(plain_leaves, vectors_nd, branching),
        )
        for branching in BRANCHINGS
    }
    tasks["embedding"] = partial(embed, texts), partial(embed_plainly, texts)
    for task, (ours, theirs) in tasks.items():
        rounds = [(timed(ours), timed(theirs)) for _ in range(ROUNDS)]
        row = {"part": "side by side", "stage": task, "items": SUBSET}
        row |= costs(np.array([[seconds for _, seconds in both] for both in rounds]), megabytes)
        rows.append(row)
    for row, branching in zip(rows[: len(BRANCHINGS)], BRANCHINGS, strict=True):
        leaves_sn = {
            side: [leaves(vectors_nd, branching, seed) for seed in SEEDS]
            for side, leaves in SIDES.items()
        }
        inertia_s = {
            side: [inertia(vectors_nd, leaf_n) for leaf_n in own] for side, own in leaves_sn.items()
        }
        for side in SIDES:
            row |= quality(leaves_sn[side], inertia_s[side], side)
        gap = ttest_ind(inertia_s[""], inertia_s["peer_"], equal_var=False).confidence_interval()
        row |= {"inertia_gap_low": gap.low, "inertia_gap_high": gap.high}
    return pd.DataFrame(rows)


def costs(seconds_r2: NDArray[np.float64], megabytes: float) -> dict[str, float]:
    """Medians over rounds of our and the peer's CPU seconds, and the range of their ratio."""
    own, peer = np.median(seconds_r2, axis=0)
    ratio_r = seconds_r2[:, 1] / seconds_r2[:, 0]
    found = {"cpu_s": own, "items_per_s": SUBSET / own, "mb_per_s": megabytes / own}
    found |= {"peer_cpu_s": peer, "ratio": float(np.median(ratio_r))}
    return found | {"ratio_low": ratio_r.min(), "ratio_high": ratio_r.max()}


def embed(texts: list[str]) -> Vectors:
    embedder = TfidfEmbedder(TREE.dimensions, TREE.seed)
    embedder.fit(texts)
    return embedder.embed(texts)


def embed_plainly(texts: list[str]) -> Vectors:
    weights_nv = TfidfVectorizer().fit_transform(texts)
    found: Vectors = normalize(
        TruncatedSVD(TREE.dimensions, random_state=0).fit_transform(weights_nv)
    )
    return found


def tree_leaves(vectors_nd: Vectors, branching: tuple[int, ...], seed: int = TREE.seed) -> Labels:
    return ClusterTree.fit(vectors_nd, branching, seed).route(vectors_nd)[:, -1]


def plain_leaves(vectors_nd: Vectors, branching: tuple[int, ...], seed: int = 0) -> Labels:
    """KMeans in the root, then in every cluster, and so on."""
    return split_all(
        vectors_nd, branching, lambda x_nd, k: KMeans(k, random_state=seed).fit_predict(x_nd)
    )


def whole_leaves(vectors_nd: Vectors, branching: tuple[int, ...], seed: int) -> Labels:
    """Our k-means without samples."""
    rng = np.random.default_rng(seed)
    return split_all(
        vectors_nd, branching, lambda x_nd, k: nearest(x_nd, kmeans(x_nd, k, rng, sample=len(x_nd)))
    )


SIDES = {"": tree_leaves, "whole_": whole_leaves, "peer_": plain_leaves}


def split_all(
    vectors_nd: Vectors, branching: tuple[int, ...], split: Callable[[Vectors, int], Labels]
) -> Labels:
    """The leaf of each vector, where every node is split by itself."""
    node_n = np.zeros(len(vectors_nd), int)
    for children in branching:
        child_n = np.empty_like(node_n)
        for node in np.unique(node_n):
            rows = node_n == node
            child_n[rows] = node * children + split(vectors_nd[rows], children)
        node_n = child_n
    return node_n


def quality(leaves_sn: list[Labels], inertia_s: list[float], side: str) -> dict[str, float]:
    """Over seeds."""
    sizes_s = [np.unique(leaf_n, return_counts=True)[1] for leaf_n in leaves_sn]
    return {
        f"{side}inertia": float(np.mean(inertia_s)),
        f"{side}inertia_low": min(inertia_s),
        f"{side}inertia_high": max(inertia_s),
        f"{side}largest": float(np.mean([sizes.max() / sizes.mean() for sizes in sizes_s])),
    }


def inertia(vectors_nd: Vectors, leaf_n: Labels) -> float:
    leaves, index_n, sizes = np.unique(leaf_n, return_inverse=True, return_counts=True)
    sums_ld = np.zeros((len(leaves), vectors_nd.shape[1]))
    np.add.at(sums_ld, index_n, vectors_nd)
    gap_nd = vectors_nd - (sums_ld / sizes[:, None])[index_n]
    return float((gap_nd**2).sum(1).mean())


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and its CPU seconds."""
    started = time.process_time()
    return work(), time.process_time() - started


if __name__ == "__main__":
    main()
