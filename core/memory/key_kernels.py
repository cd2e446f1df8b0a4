"""Compiled loops of product keys, on CPUs in fp32: the choice of slots, and the way back from them.

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
def best_pairs(scores_h2ns: Floats, chosen_2hnk: Ints) -> None:
    """Key numbers in either half of the pairs with the largest sums, best first."""
    _, h, n, k = chosen_2hnk.shape
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
                chosen_2hnk[0, head, token, rank] = keys_2k[0, pair // k]
                chosen_2hnk[1, head, token, rank] = keys_2k[1, pair % k]


@compiled
def scores_backward(
    grad_hnk: Floats,
    chosen_2hnk: Ints,
    q_h2nd: Floats,
    keys_h2sd: Floats,
    dq_h2nd: Floats,
    dkeys_h2sd: Floats,
) -> None:
    """Of the chosen scores q . K[key], of which the gradient holds in either half: dq = sum over k
    of grad K[key]; adds grad q to each key's gradient.
    """
    halves, heads, tokens, k = chosen_2hnk.shape
    for head in range(heads):
        for half in range(halves):
            for token in range(tokens):
                q, dq = q_h2nd[head, half, token], dq_h2nd[head, half, token]
                for i in range(len(q)):
                    dq[i] = f32(0)
                for rank in range(k):
                    grad = grad_hnk[head, token, rank]
                    number = chosen_2hnk[half, head, token, rank]
                    key, dkey = keys_h2sd[head, half, number], dkeys_h2sd[head, half, number]
                    for i in range(len(q)):
                        dq[i] += grad * key[i]
                        dkey[i] += grad * q[i]


@compiled
def by_slot(slot_r: Ints, start_s: Ints, read_r: Ints, slot_u: Ints) -> int:
    """The reads of slot s in their order, as read_r[start_s[s] : start_s[s + 1]], and the slots
    that were read, ascending; how many. start_s comes as zeros, one more than slots.
    """
    reads = count = 0
    for read in range(len(slot_r)):
        start_s[slot_r[read]] += 1
    for slot in range(len(start_s)):
        here = start_s[slot]
        if here:
            slot_u[count] = slot
            count += 1
        reads += here
        start_s[slot] = reads
    for read in range(len(slot_r) - 1, -1, -1):
        start_s[slot_r[read]] -= 1
        read_r[start_s[slot_r[read]]] = read
    return count


@compiled
def read_backward(
    grad_nd: Floats,
    weight_r: Floats,
    values_sd: Floats,
    start_s: Ints,
    read_r: Ints,
    slot_u: Ints,
    dweight_r: Floats,
    dvalues_ud: Floats,
) -> None:
    """Of y[n] = sum over its reads of weight V[slot]: dweight = grad . V[slot], and for each slot
    that was read the sum of weight grad. Slot by slot, so that each row of a table larger than the
    caches comes once.
    """
    reads = len(weight_r) // len(grad_nd)
    for u in range(len(slot_u)):
        value, dvalue = values_sd[slot_u[u]], dvalues_ud[u]
        for i in range(len(dvalue)):
            dvalue[i] = f32(0)
        for at in range(start_s[slot_u[u]], start_s[slot_u[u] + 1]):
            read = read_r[at]
            grad, weight = grad_nd[read // reads], weight_r[read]
            product = f32(0)
            for i in range(len(grad)):
                product += grad[i] * value[i]
                dvalue[i] += weight * grad[i]
            dweight_r[read] = product
