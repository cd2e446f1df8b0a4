"""What brings a prefix to the right leaf? Changes to the TF-IDF tree of 4 by 4.

    python -m benchmarks.routing_levers --out benchmarks/routing_levers.csv

The sample is that of benchmarks/routing.py. Agreement alone can be had by coarse leaves, so each
line also says what the leaves tell about the tokens: the gain, in nats per token of the second
parts of validation windows, of each leaf's unigrams over those of all training windows. The lines
of MiniLM take about 160 CPU seconds, the others about 5 each.
"""

import argparse
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.routing import HELD_OUT, PREFIX, SEEDS, TRAIN
from core.config import DataConfig, TreeConfig
from core.corpus.prepare import prepare_windows
from core.corpus.windows import SplitWindows, prefix_tokens
from core.retrieval import kmeans
from core.retrieval.embedders import Embedder, new_embedder
from core.retrieval.report import agreement, chance_agreement
from core.retrieval.tfidf import TfidfEmbedder
from core.retrieval.tree import ClusterTree

BRANCHING = (4, 4)
PRIOR = 1_000  # tokens; weight of the parent's unigrams in a cluster's
FIT_EVERY = 3  # TF-IDF is fitted on every third train window
Vectors = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Lever:
    """What is changed; everything else as in the default tree."""

    name: str
    _: KW_ONLY
    vectorizer: dict[str, Any] = field(default_factory=dict)  # scikit-learn's settings
    dimensions: int = 128
    cap: float = kmeans.CAP  # largest share of a cluster, in units of 1/k
    fit: tuple[str, ...] = ("document",)  # keys whose vectors the tree is fitted on
    train_key: str = "document"
    titles: bool = True  # a later window of a document is led by its title
    preceding: bool = False  # the prefix key also sees the window before, which no model sees
    leaves: int = 1  # each prefix uses so many, in equal parts
    embedder: Literal["tfidf", "minilm", "minilm-words"] = "tfidf"


LEVERS = (
    Lever("default"),
    Lever("without titles", titles=False),
    Lever("stop words left out", vectorizer={"stop_words": "english"}),
    Lever("tf, not 1 + ln tf", vectorizer={"sublinear_tf": False}),
    Lever("words of 5 windows or more", vectorizer={"min_df": 5}),
    Lever("16 dimensions", dimensions=16),
    Lever("k-means without balance", cap=inf),
    Lever("fitted on prefixes", fit=("prefix",)),
    Lever("fitted on both", fit=("document", "prefix")),
    Lever("trained by prefix", train_key="prefix"),
    Lever("fitted on both, trained by prefix", fit=("document", "prefix"), train_key="prefix"),
    Lever(
        "the same, stop words left out",
        vectorizer={"stop_words": "english"},
        fit=("document", "prefix"),
        train_key="prefix",
    ),
    Lever("two leaves a prefix", leaves=2),
    Lever("two leaves a prefix, trained by prefix", train_key="prefix", leaves=2),
    Lever("prefix sees the window before", preceding=True),
    Lever("MiniLM's word vectors", embedder="minilm-words"),
    Lever("MiniLM's word vectors, trained by prefix", embedder="minilm-words", train_key="prefix"),
    Lever("MiniLM", embedder="minilm"),
    Lever("MiniLM, trained by prefix", embedder="minilm", train_key="prefix"),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """Some windows of a split: their texts by key, and the tokens that are counted."""

    split: SplitWindows
    windows: Integers

    @classmethod
    def draw(cls, split: SplitWindows, count: int) -> "Sample":
        return cls(
            split, np.sort(np.random.default_rng(0).choice(len(split), count, replace=False))
        )

    def texts(self, key: str, lever: Lever) -> Iterator[str]:
        prefix = PREFIX if key == "prefix" else None
        for window in self.windows.tolist():
            text = self.split.key_text(window, prefix)
            document = self.split.document[window]
            continues = window > 0 and self.split.document[window - 1] == document
            if continues and self.split.titles[document] and not lever.titles:
                text = text.partition("\n")[2]
            if continues and prefix and lever.preceding:
                text = f"{self.split.key_text(window - 1)} {text}"
            yield text

    def tokens(self, window: int, second_part: bool) -> Integers:
        """Predicted tokens of a window, all or those behind the prefix."""
        a, b = self.split.offsets[window : window + 2]
        first = prefix_tokens(np.array([b - a], np.int32), PREFIX)[0] if second_part else 1
        return np.asarray(self.split.tokens[a + first : b], np.int64)

    def counted(self, second_part: bool) -> tuple[Integers, Integers]:
        """Tokens of all windows, flat, and the place in the sample that each belongs to."""
        parts = [self.tokens(window, second_part) for window in self.windows.tolist()]
        return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    store = prepare_windows(DataConfig(), given.results / "cache")
    train, held_out = store.split("train"), store.split("validation")
    fitted_on = [train.key_text(window) for window in range(0, len(train), FIT_EVERY)]
    samples = Sample.draw(train, TRAIN), Sample.draw(held_out, HELD_OUT)
    rows = []
    for lever in LEVERS:
        embedder = make_embedder(lever, fitted_on, given.results / "cache")
        rows.append({"lever": lever.name} | measure(lever, embedder, *samples))
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(given.out, index=False)


def make_embedder(lever: Lever, fitted_on: list[str], cache: Path) -> Embedder:
    tree = TreeConfig(embedder=lever.embedder, dimensions=lever.dimensions)
    embedder = new_embedder(tree, cache, "cpu")
    if isinstance(embedder, TfidfEmbedder):
        embedder._vectorizer.set_params(**lever.vectorizer)
    embedder.fit(fitted_on)
    return embedder


def measure(lever: Lever, embedder: Embedder, train: Sample, held_out: Sample) -> dict[str, float]:
    """Means over tree seeds, and the standard deviation of what is compared."""
    vectors = {
        (sample, key): embedder.embed(sample.texts(key, lever))
        for sample in (train, held_out)
        for key in ("document", "prefix")
    }
    found = pd.DataFrame(one_tree(lever, seed, vectors, train, held_out) for seed in range(SEEDS))
    spread = found[["agreement_2", "gain_prefix"]].std().add_prefix("sd_")
    return pd.concat([found.mean(), spread]).round(4).to_dict()


def one_tree(
    lever: Lever, seed: int, vectors: dict[Any, Vectors], train: Sample, held_out: Sample
) -> dict[str, float]:
    with patch.object(kmeans, "CAP", lever.cap):
        fitted_on = np.concatenate([vectors[train, key] for key in lever.fit])
        tree = ClusterTree.fit(fitted_on, BRANCHING, seed)
    routed, document = tree.route(vectors[train, lever.train_key]), vectors[held_out, "document"]
    prefix_nl, document_nl = tree.route(vectors[held_out, "prefix"]), tree.route(document)
    leaves_nk = nearest_leaves(tree, vectors[held_out, "prefix"], prefix_nl[:, -1], lever.leaves)
    centroids_cd = tree.levels[-1].reshape(-1, document.shape[1])
    spread = ((document - document.mean(0)) ** 2).sum()
    logs_cv = unigram_gains(train, routed)
    return {
        "agreement_1": agreement(prefix_nl, document_nl)[0],
        "agreement_2": float((leaves_nk == document_nl[:, -1:]).any(axis=1).mean()),
        "chance_2": chance_agreement(document_nl)[-1],
        "largest_leaf": float(np.bincount(routed[:, -1]).max() / len(routed)),
        "inertia": float(((document - centroids_cd[document_nl[:, -1]]) ** 2).sum() / spread),
        "gain_prefix": gain(logs_cv, held_out, leaves_nk),
        "gain_document": gain(logs_cv, held_out, document_nl[:, -1:]),
    }


def nearest_leaves(tree: ClusterTree, vectors_nd: Vectors, leaf_n: Any, count: int) -> Integers:
    """The leaf of the greedy descent, and the nearest others by their centroids: [n, count]."""
    centroids_cd = tree.levels[-1].reshape(-1, vectors_nd.shape[1])
    near_nc = vectors_nd @ centroids_cd.T - 0.5 * (centroids_cd**2).sum(1)
    near_nc[np.arange(len(leaf_n)), leaf_n] = np.inf
    return np.argsort(-near_nc, axis=1)[:, :count]


def unigram_gains(train: Sample, path_nl: NDArray[np.int32]) -> NDArray[np.float64]:
    """Each leaf's unigram probabilities over those of all windows: [leaves, v]. A cluster's counts
    are smoothed towards its parent's probabilities."""
    token_t, window_t = train.counted(second_part=False)
    size = train.split.tokenizer.get_vocab_size()
    everywhere_v = (np.bincount(token_t, minlength=size) + 1) / (len(token_t) + size)
    parent_cv = everywhere_v[None]
    for children, cluster_n in zip(BRANCHING, path_nl.T, strict=True):
        clusters = len(parent_cv) * children
        flat = np.bincount(cluster_n[window_t] * size + token_t, minlength=clusters * size)
        count_cv = flat.reshape(clusters, size) + PRIOR * np.repeat(parent_cv, children, axis=0)
        parent_cv = count_cv / count_cv.sum(axis=1, keepdims=True)
    return parent_cv / everywhere_v


def gain(ratio_cv: NDArray[np.float64], held_out: Sample, leaves_nk: Integers) -> float:
    """Nats per token of the second parts, under the mean of each window's leaves."""
    token_t, window_t = held_out.counted(second_part=True)
    return float(np.log(ratio_cv[leaves_nk[window_t], token_t[:, None]].mean(axis=1)).mean())


if __name__ == "__main__":
    main()
