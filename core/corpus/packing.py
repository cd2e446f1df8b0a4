"""Windows of one leaf into rows of fixed length: best-fit, longest first."""

import numpy as np
from numpy.typing import NDArray

from core.dataset import PADDING, Rows

_CHUNK = 1 << 16  # windows copied at once

Integers = NDArray[np.int64]


def pack_rows(
    lengths: NDArray[np.integer],
    path_nl: NDArray[np.int32],
    offsets: NDArray[np.int64],
    tokens: NDArray[np.uint16],
    seq_len: int,
    seed: int,
) -> Rows:
    """Every window once, whole, in a row of seq_len + 1 tokens that holds windows of one leaf only.

    lengths [n] and offsets [n + 1] find window i in the flat `tokens`; path_nl [n, levels] is its
    leaf. The seed decides which windows of equal length share a row. At most 255 windows a row.
    Raises ValueError for a window that no row can hold.
    """
    if lengths.max(initial=0) > seq_len + 1:
        raise ValueError(f"a window of {lengths.max()} tokens fits no row of {seq_len + 1}")
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    leaves, leaf_n = np.unique(path_nl, axis=0, return_inverse=True)
    by_leaf = shuffled[np.argsort(leaf_n[shuffled], kind="stable")]
    borders = np.cumsum(np.bincount(leaf_n, minlength=len(leaves)))
    row_n = np.empty(len(lengths), np.int64)
    leaf_r: list[int] = []
    for leaf, members in enumerate(np.split(by_leaf, borders[:-1])):
        fresh = _rows_of_leaf(lengths[members], seq_len + 1)
        row_n[members] = fresh + len(leaf_r)
        leaf_r += [leaf] * (int(fresh.max(initial=-1)) + 1)
    tokens_nt, segments_nt = _fill(row_n, lengths, offsets, tokens, (len(leaf_r), seq_len + 1))
    return Rows(tokens_nt, segments_nt, leaves[leaf_r].astype(np.int32))


def _rows_of_leaf(lengths: NDArray[np.integer], room: int) -> Integers:
    """Row of each window: a row takes, again and again, the longest window left that still fits."""
    row_n = np.empty(len(lengths), np.int64)
    waiting: dict[int, list[int]] = {}
    for window, length in enumerate(lengths.tolist()):
        waiting.setdefault(length, []).append(window)
    present = sum(1 << length for length in waiting)  # bit l: a window of length l is waiting
    row = 0
    while present:
        free, held = room, 0
        while held < PADDING and (length := (present & ((2 << free) - 1)).bit_length() - 1) > 0:
            row_n[waiting[length].pop()] = row
            free, held = free - length, held + 1
            if not waiting[length]:
                present ^= 1 << length
        row += 1
    return row_n


def _fill(
    row_n: Integers,
    lengths: NDArray[np.integer],
    offsets: NDArray[np.int64],
    tokens: NDArray[np.uint16],
    shape: tuple[int, int],
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Copies the windows to their rows, and numbers them within each row."""
    order = np.argsort(row_n, kind="stable")
    first = np.flatnonzero(np.diff(row_n[order], prepend=-1))
    in_row = np.diff(np.append(first, len(order)))
    ends = np.cumsum(lengths[order])
    start = ends - lengths[order]  # of each window if rows stood without padding ...
    start -= np.repeat(start[first], in_row)  # ... and within its row
    segment = np.arange(len(order)) - np.repeat(first, in_row)
    tokens_nt, segments_nt = np.zeros(shape, np.uint16), np.full(shape, PADDING, np.uint8)
    for low in range(0, len(order), _CHUNK):
        part = slice(low, low + _CHUNK)
        window, length = order[part], lengths[order[part]]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        target = np.repeat(row_n[window] * shape[1] + start[part], length) + within
        tokens_nt.reshape(-1)[target] = tokens[np.repeat(offsets[window], length) + within]
        segments_nt.reshape(-1)[target] = np.repeat(segment[part], length)
    return tokens_nt, segments_nt
