"""Texts to unit vectors: what every embedder does, and which there are."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.retrieval.minilm import MiniLMEmbedder
from core.retrieval.random_tree import HashEmbedder
from core.retrieval.tfidf import TfidfEmbedder

__all__ = ["Embedder", "HashEmbedder", "MiniLMEmbedder", "TfidfEmbedder"]


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
