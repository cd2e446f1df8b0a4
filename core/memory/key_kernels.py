"""Compiled loops of product keys, on CPUs in fp32: the choice of slots, and the way back to values.

All of them stay in one file, for numba looks for changes in a function's own file alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.kernels import Floats, compiled

Ints = NDArray[np.int64]
f32: Any = np.float32


@compiled
def insert(value: float, number: int, best_k: Floats, number_k: Ints) -> None:
    """Into a list that descends, and whose last entry goes."""
    i = len(best_k) - 1
    while i > 0 and best_k[i - 1] < value:
        best_k[i], number_k[i] = best_k[i - 1], number_k[i - 1]
        i -= 1
    best_k[i], number_k[i] = value, number


@compiled
def highest(score_s: Floats, best_k: Floats, number_k: Ints) -> None:
    """The largest scores, best first, and where they stand."""
    best_k[:] = -np.inf
    for i in range(len(score_s)):
        if score_s[i] > best_k[-1]:
            insert(score_s[i], i, best_k, number_k)


@compiled
def highest_sums(one_k: Floats, two_k: Floats, best_k: Floats, pair_k: Ints) -> None:
    """The largest sums of one of each, as pairs i k + j of places in lists that descend.

    (i + 1) (j + 1) - 1 other pairs are no worse than (i, j), so few pairs can be among the best.
    """
    k = len(best_k)
    best_k[:] = -np.inf
    for i in range(k):
        for j in range(k // (i + 1)):
            total = one_k[i] + two_k[j]
            if not total > best_k[-1]:
                break
            insert(total, i * k + j, best_k, pair_k)


@compiled
def best_pairs(scores_h2ns: Floats, first_hnk: Ints, second_hnk: Ints) -> None:
    """Key numbers in either half of the pairs with the largest sums, best first."""
    h, n, k = first_hnk.shape
    best_3k, number_3k = np.empty((3, k), np.float32), np.zeros((3, k), np.int64)
    for head in range(h):
        for token in range(n):
            for half in range(2):
                highest(scores_h2ns[head, half, token], best_3k[half], number_3k[half])
            highest_sums(best_3k[0], best_3k[1], best_3k[2], number_3k[2])
            for rank in range(k):
                pair = number_3k[2, rank]
                first_hnk[head, token, rank] = number_3k[0, pair // k]
                second_hnk[head, token, rank] = number_3k[1, pair % k]


@compiled
def read_backward(
    grad_nd: Floats,
    slot_nk: Ints,
    weight_nk: Floats,
    values_sd: Floats,
    place_s: Ints,
    dweight_nk: Floats,
    dvalues_ud: Floats,
) -> None:
    """Of y = sum over k of weight V[slot]: dweight = grad . V[slot]; adds weight grad to each
    slot's gradient, at its place among those that are read.
    """
    for token in range(len(slot_nk)):
        grad = grad_nd[token]
        for read in range(slot_nk.shape[1]):
            slot, weight = slot_nk[token, read], weight_nk[token, read]
            value, dvalue = values_sd[slot], dvalues_ud[place_s[slot]]
            product = f32(0)
            for i in range(len(grad)):
                product += grad[i] * value[i]
            dweight_nk[token, read] = product
            for i in range(len(grad)):
                dvalue[i] += weight * grad[i]
