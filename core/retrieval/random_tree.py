"""The control whose tree means nothing: a path is the hash of the document's id.

The hash is written as a vector, one indicator of the child to take a level, and the centroids are
those indicators. So whatever reads vectors and centroids reads this tree too. Random centroids
would not do: texts near one another would still share a leaf.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.retrieval.tree import ClusterTree
from core.retrieval.vectors import normalise
from core.writing import write_text


class HashEmbedder:
    """Maps keys to uniform paths, written as unit vectors float32 [n, sum of `branching`]."""

    def __init__(self, branching: Sequence[int], seed: int) -> None:
        self.branching, self.seed = tuple(branching), seed

    def fit(self, texts: Iterable[str]) -> None:
        """Nothing to learn: a hash sees no other key."""

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """One indicator a level, scaled to length 1; equal keys give equal rows on any machine."""
        children_nl = np.array([self._children(text) for text in texts], np.int64)
        children_nl = children_nl.reshape(-1, len(self.branching))
        levels = zip(self.branching, children_nl.T, strict=True)
        return normalise(np.concatenate([np.eye(k)[child_n] for k, child_n in levels], axis=1))

    def _children(self, key: str) -> list[int]:
        value = int.from_bytes(blake2b(f"{self.seed} {key}".encode()).digest())
        children = []
        for k in self.branching:
            value, child = divmod(value, k)
            children.append(child)
        return children

    def save(self, folder: Path) -> None:
        settings = {"branching": self.branching, "seed": self.seed}
        write_text(folder / "hash.json", json.dumps(settings))

    @classmethod
    def load(cls, folder: Path) -> "HashEmbedder":
        """The embedder that `save` described."""
        return cls(**json.loads((folder / "hash.json").read_text()))


def random_tree(branching: Sequence[int]) -> ClusterTree:
    """The tree that `HashEmbedder` vectors descend: the same indicators under every node."""
    levels, nodes = [], 1
    for start, k in zip(np.cumsum([0, *branching]), branching, strict=False):
        indicator_kd = np.eye(sum(branching), dtype=np.float32)[start : start + k]
        levels.append(np.tile(indicator_kd, (nodes, 1, 1)))
        nodes *= k
    return ClusterTree(tuple(levels))
