"""The cluster tree: k-means splits every node; a path is the greedy descent from the root."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from core.corpus.progress import follow
from core.errors import InputError
from core.retrieval.kmeans import TooFewDistinctError, Vectors, kmeans, nearest
from core.writing import whole_file


@dataclass(frozen=True)
class ClusterTree:
    """Centroids float32 per level, [nodes of the level above, children of each, d].

    Cluster ids count over the whole level: child j of node i is i * children + j.
    """

    levels: tuple[NDArray[np.float32], ...]

    @classmethod
    def fit(cls, vectors_nd: Vectors, branching: Sequence[int], seed: int) -> "ClusterTree":
        """Split unit vectors [n, d] into branching[0] clusters, each into branching[1], and so on.

        Equal seeds give equal bits on one machine.
        Raises InputError when a node has fewer distinct vectors than children.
        """
        levels: list[NDArray[np.float32]] = []
        members = [np.arange(len(vectors_nd))]
        try:
            with threadpool_limits(1):  # two threads collapse on shared cores
                for level, children in enumerate(branching):
                    nodes = follow(members, f"clustering level {level + 1}", len(members))
                    levels.append(_split(vectors_nd, nodes, children, (seed, level)))
                    node_n = _descend(vectors_nd, members, levels[-1])
                    members = _members(node_n, len(members) * children)
        except TooFewDistinctError as error:
            raise InputError(
                f"branching {tuple(branching)} needs {math.prod(branching)} windows that differ, "
                f"and in every node as many as it has children, but a node has {error}; the corpus "
                f"has {len(vectors_nd)} windows; use fewer levels or more text"
            ) from None
        return cls(tuple(levels))

    @property
    def clusters(self) -> tuple[int, ...]:
        """How many clusters each level has."""
        return tuple(len(level) * level.shape[1] for level in self.levels)

    def route(self, vectors_nd: Vectors) -> NDArray[np.int32]:
        """Paths int32 [n, levels]: at each level the nearest child (L2) of the node above."""
        path_nl = np.empty((len(vectors_nd), len(self.levels)), np.int32)
        members = [np.arange(len(vectors_nd))]
        with threadpool_limits(1):
            for level, centroids_pkd in enumerate(self.levels):
                path_nl[:, level] = _descend(vectors_nd, members, centroids_pkd)
                members = _members(path_nl[:, level], self.clusters[level])
        return path_nl

    def save(self, file: Path) -> None:
        """Write the centroids as safetensors."""
        with whole_file(file) as partial:
            save_file({f"level_{i}": level for i, level in enumerate(self.levels)}, partial)

    @classmethod
    def load(cls, file: Path) -> "ClusterTree":
        """The tree that `save` wrote."""
        tensors = load_file(file)
        return cls(tuple(tensors[f"level_{i}"] for i in range(len(tensors))))


def _split(
    vectors_nd: Vectors, members: Iterable[NDArray[np.int64]], children: int, seed: tuple[int, int]
) -> NDArray[np.float32]:
    """Centroids [nodes, children, d]; every node draws from its own generator."""
    return np.stack(
        [
            kmeans(vectors_nd[rows], children, np.random.default_rng([*seed, node]))
            for node, rows in enumerate(members)
        ]
    )


def _descend(
    vectors_nd: Vectors, members: list[NDArray[np.int64]], centroids_pkd: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Each vector's cluster one level down, int32 [n], from the rows that every node holds."""
    child_n = np.empty(len(vectors_nd), np.int32)
    for node, rows in enumerate(members):
        first = node * centroids_pkd.shape[1]
        child_n[rows] = first + nearest(vectors_nd[rows], centroids_pkd[node])
    return child_n


def _members(node_n: NDArray[np.int32], nodes: int) -> list[NDArray[np.int64]]:
    """Rows of each node, ascending."""
    order = np.argsort(node_n, kind="stable")
    return np.split(order, np.searchsorted(node_n[order], np.arange(1, nodes)))
