"""Compiled loops of product keys, on CPUs in fp32: the choice of slots, and the way back to values.

All of them stay in one file, for numba looks for changes in a function's own file alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.kernels import Floats, compiled

Ints = NDArray[np.int64]
f32: Any = np.float32
LARGEST = f32(3e38)  # nearly that of fp32
FEW = 4  # to rank some more costs less than to tell apart scores that are nearly equal


@compiled
def above(score_s: Floats, bound: float) -> float:
    """How many; counted in fp32, as wide as the scores, it runs in vector registers."""
    count = f32(0)
    for i in range(len(score_s)):
        count += f32(1) if score_s[i] > bound else f32(0)
    return count


@compiled
def lower_bound(score_s: Floats, k: int) -> float:
    """A number with k scores above it, or a few more; or, where that many are equal, theirs."""
    low, high = LARGEST, -LARGEST
    for i in range(len(score_s)):
        low, high = min(low, score_s[i]), max(high, score_s[i])
    low, high = max(low, -LARGEST), min(high, LARGEST)  # halves of infinities would not end
    low -= f32(1e-6) * abs(low) + f32(1e-30)
    middle = f32(0.5) * low + f32(0.5) * high
    while low < middle and middle < high:
        count = above(score_s, middle)
        if k <= count <= k + FEW:
            return middle
        if count > k:
            low = middle
        else:
            high = middle
        middle = f32(0.5) * low + f32(0.5) * high
    return high


@compiled
def highest(score_s: Floats, place_k: Ints, score_p: Floats, place_p: Ints) -> None:
    """Where the largest scores stand, best first, of equals the first; p is room for all, and one.

    Scores that are no numbers are never chosen; a place that nothing is left for is 0.
    """
    k, count = len(place_k), 0
    bound = lower_bound(score_s, k)
    for i in range(len(score_s)):
        score_p[count], place_p[count] = score_s[i], i
        count += score_s[i] > bound
    for i in range(len(score_s) if count < k else 0):
        if count < k and score_s[i] == bound:
            score_p[count], place_p[count] = bound, i
            count += 1
    place_k[:] = -1
    for i in range(count):
        rank = int(above(score_p[:count], score_p[i]))
        while rank < k and place_k[rank] >= 0:
            rank += 1
        if rank < k:
            place_k[rank] = place_p[i]
    for rank in range(k if count < k else 0):
        place_k[rank] = max(place_k[rank], 0)


@compiled
def add_pairs(one_k: Floats, two_k: Floats, sum_p: Floats, pair_p: Ints) -> int:
    """Sums of one of each, and the pairs i k + j of their places in lists that descend; how many.

    (i + 1) (j + 1) - 1 other pairs are no worse than (i, j), so few pairs can be among the k best.
    """
    k, count = len(one_k), 0
    for i in range(k):
        for j in range(k // (i + 1)):
            sum_p[count], pair_p[count] = one_k[i] + two_k[j], i * k + j
            count += 1
    return count


@compiled
def best_pairs(scores_h2ns: Floats, first_hnk: Ints, second_hnk: Ints) -> None:
    """Key numbers in either half of the pairs with the largest sums, best first."""
    h, n, k = first_hnk.shape
    keys_2k, best_2k = np.empty((2, k), np.int64), np.empty((2, k), np.float32)
    sum_p, pair_p, place_k = (
        np.empty(k * k, np.float32),
        np.empty(k * k, np.int64),
        keys_2k[0].copy(),
    )
    room = max(scores_h2ns.shape[3], k * k) + 1
    score_p, place_p = np.empty(room, np.float32), np.empty(room, np.int64)
    for head in range(h):
        for token in range(n):
            for half in range(2):
                score_s = scores_h2ns[head, half, token]
                highest(score_s, keys_2k[half], score_p, place_p)
                for rank in range(k):
                    best_2k[half, rank] = score_s[keys_2k[half, rank]]
            pairs = add_pairs(best_2k[0], best_2k[1], sum_p, pair_p)
            highest(sum_p[:pairs], place_k, score_p, place_p)
            for rank in range(k):
                pair = pair_p[place_k[rank]]
                first_hnk[head, token, rank] = keys_2k[0, pair // k]
                second_hnk[head, token, rank] = keys_2k[1, pair % k]


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
