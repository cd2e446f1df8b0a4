"""Balanced k-means on unit vectors, as the hierarchical memories' tree needs it.

k-means++ start, then EM steps that each see a fresh sample; a cluster whose share exceeds 1.5/k
hands half of its examples to the smallest one. Source: arXiv 2510.02375, app. A.2.
"""

import numpy as np
from numpy.typing import NDArray

STEPS = 20
SAMPLE = 6_400  # examples a step; source: arXiv 2510.02375, app. A.2
CAP = 1.5  # largest share of a cluster, in units of 1/k; same source
# Last steps without splits: the two halves of a cluster coincide in the step that splits it.
SETTLE = 2
CHUNK = 65_536  # vectors compared at once

Vectors = NDArray[np.float32]


class TooFewDistinctError(ValueError):
    """The examples hold fewer distinct vectors than the clusters asked for."""


def kmeans(
    vectors_nd: Vectors,
    k: int,
    rng: np.random.Generator,
    *,
    steps: int = STEPS,
    sample: int = SAMPLE,
) -> Vectors:
    """Centroids float32 [k, d] of unit vectors [n, d]; equal generators give equal bits.

    Raises TooFewDistinctError when a sample holds fewer than k distinct vectors.
    """
    centroids_kd = plus_plus(_draw(vectors_nd, sample, rng), k, rng)
    for step in range(steps):
        drawn_nd = _draw(vectors_nd, sample, rng)
        labels_n = nearest(drawn_nd, centroids_kd)
        if step < steps - SETTLE:
            labels_n = balance(labels_n, k, rng)
        centroids_kd = _means(drawn_nd, labels_n, centroids_kd)
    return centroids_kd


def plus_plus(vectors_nd: Vectors, k: int, rng: np.random.Generator) -> Vectors:
    """k distinct examples, each drawn by its squared distance from those before it.

    Source: Arthur and Vassilvitskii, 2007. Raises TooFewDistinctError.
    """
    if not len(vectors_nd):
        raise TooFewDistinctError(f"0 distinct windows for {k} children")
    chosen = [int(rng.integers(len(vectors_nd)))]
    distance_n = np.full(len(vectors_nd), np.inf)
    while len(chosen) < k:
        # By difference: the expanded square leaves rounding where two vectors are equal.
        gap_nd = vectors_nd - vectors_nd[chosen[-1]]
        distance_n = np.minimum(distance_n, np.einsum("nd,nd->n", gap_nd, gap_nd))
        total = distance_n.sum()
        if total == 0:
            raise TooFewDistinctError(f"{len(chosen)} distinct windows for {k} children")
        chosen.append(int(rng.choice(len(vectors_nd), p=distance_n / total)))
    return vectors_nd[chosen]


def nearest(vectors_nd: Vectors, centroids_kd: Vectors) -> NDArray[np.int32]:
    """The centroid nearest by L2, int32 [n]; the lower id where two are equally near."""
    half_square_k = 0.5 * np.einsum("kd,kd->k", centroids_kd, centroids_kd)
    labels_n = np.empty(len(vectors_nd), np.int32)
    for start in range(0, len(vectors_nd), CHUNK):
        rows = slice(start, start + CHUNK)
        labels_n[rows] = np.argmin(half_square_k - vectors_nd[rows] @ centroids_kd.T, axis=1)
    return labels_n


def balance(labels_n: NDArray[np.int32], k: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Hand half of every cluster above the cap, drawn at random, to the one smallest by then.

    An empty cluster takes half of the largest in the same way, so that no centroid dies.
    """
    labels_n = labels_n.copy()
    for _ in range(k):
        sizes_k = np.bincount(labels_n, minlength=k)
        largest, smallest = int(sizes_k.argmax()), int(sizes_k.argmin())
        if sizes_k[largest] <= CAP * len(labels_n) / k and sizes_k[smallest]:
            break
        members = rng.permutation(np.flatnonzero(labels_n == largest))
        labels_n[members[: len(members) // 2]] = smallest
    return labels_n


def _draw(vectors_nd: Vectors, sample: int, rng: np.random.Generator) -> Vectors:
    if len(vectors_nd) <= sample:
        return vectors_nd
    return vectors_nd[np.sort(rng.choice(len(vectors_nd), sample, replace=False))]


def _means(vectors_nd: Vectors, labels_n: NDArray[np.int32], before_kd: Vectors) -> Vectors:
    """Mean of each cluster; a cluster without examples keeps its centroid."""
    k = len(before_kd)
    members_kn = (labels_n == np.arange(k)[:, None]).astype(np.float32)
    sizes_k = members_kn.sum(axis=1)[:, None]
    return np.where(sizes_k > 0, members_kn @ vectors_nd / np.maximum(sizes_k, 1), before_kd)
