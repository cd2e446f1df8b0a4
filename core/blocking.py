"""Switch off a part of the bank at evaluation.

A part is a set of leaves; a block of an upper level stays in use while a leaf under it is open. A
text whose leaf is blocked goes to the best remaining cluster: the greedy descent goes on, past
clusters without an open leaf. Nothing is retrained. The paper blocks what matches each prompt best
(arXiv 2510.02375, fig. 6b): `block_best` does so.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError
from core.retrieval.tree import ClusterTree

SMALLEST_SHARE = 16  # 1/k of the bank: the least that `block_shares` blocks

Vectors = NDArray[np.float32]
Leaves = NDArray[np.bool_]  # [n, leaves], true where a leaf is open to a text


@dataclass(frozen=True)
class Blocking:
    """What is switched off, by name; `open_leaves` says what each text [n, d] may still use."""

    name: str
    open_leaves: Callable[[ClusterTree, Vectors], Leaves]


def block_subtree(level: int, cluster: int) -> Blocking:
    """A cluster and all under it, for every text; at the last level this is one path.

    Levels count from 1. Raises InputError, when it is applied, if the tree has no such cluster.
    """

    def open_leaves(tree: ClusterTree, vectors_nd: Vectors) -> Leaves:
        if not (1 <= level <= len(tree.clusters) and 0 <= cluster < tree.clusters[level - 1]):
            raise InputError(
                f"blocking level {level}, cluster {cluster}: the tree has clusters "
                f"{tree.clusters} per level; give a level from 1 and a cluster from 0"
            )
        return np.tile(_leaf_parents(tree, level) != cluster, (len(vectors_nd), 1))

    return Blocking(f"level {level} cluster {cluster}", open_leaves)


def parse_cluster(text: str) -> Blocking:
    """`block_subtree` from LEVEL:NUMBER. Raises InputError for other words."""
    if not re.fullmatch(r"\d+:\d+", text):
        raise InputError(f"cluster {text!r}: give LEVEL:NUMBER, as 1:0")
    level, cluster = map(int, text.split(":"))
    return block_subtree(level, cluster)


def block_best(k: int) -> Blocking:
    """The 1/k of the bank that matches each text best: where the router would go first, and next.

    Whole clusters are blocked, of the first level whose count k divides. Raises InputError, when it
    is applied, if there is none.
    """

    def open_leaves(tree: ClusterTree, vectors_nd: Vectors) -> Leaves:
        level = next((i for i, n in enumerate(tree.clusters, 1) if k > 1 and n % k == 0), None)
        if level is None:
            raise InputError(
                f"blocking 1/{k} of the bank: allowed is a k above 1 that divides the clusters of "
                f"a level, which are {tree.clusters}; choose another k"
            )
        parents = _leaf_parents(tree, level)
        open_nc = np.ones((len(vectors_nd), tree.clusters[-1]), bool)
        for _ in range(tree.clusters[level - 1] // k):
            best_n = route_open(tree, vectors_nd, open_nc)[:, level - 1]
            open_nc &= parents != best_n[:, None]
        return open_nc

    return Blocking(f"best 1/{k}", open_leaves)


def block_shares(clusters: Sequence[int]) -> list[Blocking]:
    """The best 1/k for each k from 16 to 2 that divides a level of a tree with these clusters.

    Raises InputError where there is none.
    """
    shares = [k for k in range(SMALLEST_SHARE, 1, -1) if any(n % k == 0 for n in clusters)]
    if not shares:
        raise InputError(
            f"blocking: no k from 2 to {SMALLEST_SHARE} divides the clusters of a level, which are "
            f"{tuple(clusters)}; name a share or a cluster"
        )
    return [block_best(k) for k in shares]


def route_open(tree: ClusterTree, vectors_nd: Vectors, open_nc: Leaves) -> NDArray[np.int32]:
    """Paths int32 [n, levels]: at each level the nearest child (L2) that has an open leaf.

    With every leaf open this is `ClusterTree.route`. Every text must have an open leaf.
    """
    path_nl = np.empty((len(vectors_nd), len(tree.levels)), np.int32)
    node_n = np.zeros(len(vectors_nd), np.int64)
    for level, centroids_pkd in enumerate(tree.levels):
        children = centroids_pkd.shape[1]
        open_npkc = open_nc.reshape(len(open_nc), len(centroids_pkd), children, -1)
        reachable_npk = np.logical_or.reduce(open_npkc, axis=3)
        child_nkd = centroids_pkd[node_n]
        distance_nk = 0.5 * (child_nkd**2).sum(2) - np.einsum("nd,nkd->nk", vectors_nd, child_nkd)
        distance_nk[~reachable_npk[np.arange(len(node_n)), node_n]] = np.inf
        node_n = node_n * children + distance_nk.argmin(axis=1)
        path_nl[:, level] = node_n
    return path_nl


def _leaf_parents(tree: ClusterTree, level: int) -> NDArray[np.int64]:
    """The cluster at `level` (from 1) above each leaf: [leaves]."""
    below = prod(centroids.shape[1] for centroids in tree.levels[level:])
    return np.arange(tree.clusters[-1]) // below
