"""Near-duplicates across sources: MinHash, locality-sensitive hashing, exact Jaccard, union-find.

A document's shingles are its word 1-, 2- and 3-grams. The longer ones keep unrelated long texts
apart, which share most of their common words; the single words keep short texts together, where one
changed word out of ten already breaks three of eight trigrams.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from core.corpus.arrays import ArrayWriter, open_array
from core.corpus.batches import batched

SIGNATURE = 128  # hash functions of a MinHash signature
RECALL = 0.999  # of pairs exactly at the threshold
_BATCH = 2_000  # texts hashed at once
_WORD = re.compile(r"\w+")
# Odd constants (of splitmix64) that tell the words of a shingle apart by their place.
_PLACES = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)

Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]


def group_near_duplicates(texts: Iterable[str], jaccard: float, work: Path) -> Integers:
    """Group of each text: [n], the position of the group's first text.

    Two texts are in one group when a chain of pairs joins them, each pair found by LSH and with an
    exact Jaccard similarity of their shingles of at least `jaccard`. Takes one text or more;
    shingles are spooled to the folder `work`.
    """
    keys_nb, shingles, offsets = _spool(texts, rows_per_band(jaccard), work)
    parent = np.arange(len(keys_nb))
    for keys in keys_nb.T:
        order = np.argsort(keys, kind="stable")
        _join_band(keys[order], order, parent, shingles, offsets, jaccard)
    return np.array([_root(parent, node) for node in range(len(parent))], np.int64)


def rows_per_band(jaccard: float) -> int:
    """Signature rows a band: as many as still find 99.9 % of the pairs at the threshold.

    A pair of similarity s meets in one of b bands of r rows with probability 1 - (1 - s^r)^b
    (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4).
    """
    found = [r for r in range(1, 9) if 1 - (1 - jaccard**r) ** (SIGNATURE // r) >= RECALL]
    return max(found, default=1)


def _spool(
    texts: Iterable[str], rows: int, work: Path
) -> tuple[NDArray[np.uint32], Hashes, Integers]:
    """Band keys [n, bands]; the shingles of all texts, on disk; and their offsets [n + 1]."""
    known: dict[str, int] = {}
    keys, lengths = [np.zeros((0, SIGNATURE // rows), np.uint32)], [np.zeros(1, np.int64)]
    with ArrayWriter(work / "shingles.npy", np.uint64) as writer:
        for batch in batched(texts, _BATCH):
            flat, length = shingle([_word_hashes(text, known) for text in batch])
            writer.append(flat)
            lengths.append(length)
            keys.append(_band_keys(flat, length, rows))
    return (
        np.concatenate(keys),
        np.asarray(open_array(writer.path)),
        np.cumsum(np.concatenate(lengths)),
    )


def _word_hashes(text: str, known: dict[str, int]) -> list[int]:
    """A 64-bit hash of each word; a text without words counts as one word."""
    words = _WORD.findall(text.lower()) or [text]
    for word in words:
        if word not in known:
            known[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
    return [known[word] for word in words]


def shingle(documents: list[list[int]]) -> tuple[Hashes, Integers]:
    """Sorted distinct hashes of each document's word 1- to 3-grams, flat; how many a document."""
    owner = np.repeat(np.arange(len(documents)), [len(words) for words in documents])
    words = np.array([word for document in documents for word in document], np.uint64)
    hashes, owners = [], []
    for length in (1, 2, 3):
        last = len(words) - length + 1
        inside = (
            np.flatnonzero(owner[:last] == owner[length - 1 :]) if last > 0 else np.zeros(0, int)
        )
        parts = [words[inside + place] * _PLACES[place] for place in range(length)]
        hashes.append(_mixed(np.bitwise_xor.reduce(np.stack(parts)) + _PLACES[length - 1]))
        owners.append(owner[inside])
    return _distinct(np.concatenate(hashes), np.concatenate(owners), len(documents))


def _mixed(values: Hashes) -> Hashes:
    """Spreads every bit over the word, so that sums of hashes hash well (a step of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _PLACES[1]
    return values ^ (values >> np.uint64(27))


def _distinct(hashes: Hashes, owner: Integers, documents: int) -> tuple[Hashes, Integers]:
    order = np.argsort(owner, kind="stable")  # three runs that ascend: one pass of merging
    hashes, owner = hashes[order], owner[order]
    _sort_each(hashes, np.cumsum(np.bincount(owner, minlength=documents)))
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    return hashes[first], np.bincount(owner[first], minlength=documents)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _sort_each(hashes: Hashes, end_d: Integers) -> None:
    """Sorts the hashes of each document, in place."""
    start = 0
    for end in end_d:
        hashes[start:end].sort()
        start = end


def _band_keys(flat: Hashes, length: Integers, rows: int) -> NDArray[np.uint32]:
    """A hash per band of each text's MinHash signature: [n, bands]. Chance clashes cost a check."""
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, SIGNATURE, 0)
    signature = np.array(matrix.to_rows(), np.uint64)[:, : SIGNATURE // rows * rows]
    bands = signature.reshape(len(length), -1, rows)
    key = np.zeros(bands.shape[:2], np.uint64)
    for row in range(rows):
        key = _mixed((key ^ bands[:, :, row]) * _PLACES[0])
    return (key >> np.uint64(32)).astype(np.uint32)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _root(parent: Integers, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _join_band(
    keys: NDArray[np.uint32],
    order: Integers,
    parent: Integers,
    shingles: Hashes,
    offsets: Integers,
    jaccard: float,
) -> None:
    """Joins similar texts among those of equal band keys (sorted); `parent` changes in place."""
    for i in range(len(keys)):
        j = i - 1
        while j >= 0 and keys[j] == keys[i]:
            a, b = _root(parent, order[i]), _root(parent, order[j])
            if a != b and exact_jaccard(shingles, offsets, order[i], order[j]) >= jaccard:
                parent[max(a, b)] = min(a, b)
            j -= 1


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def exact_jaccard(shingles: Hashes, offsets: Integers, a: int, b: int) -> float:
    """|A and B| / |A or B| of the sorted shingles of texts a and b."""
    i, j, shared = offsets[a], offsets[b], 0
    while i < offsets[a + 1] and j < offsets[b + 1]:
        if shingles[i] == shingles[j]:
            i, j, shared = i + 1, j + 1, shared + 1
        elif shingles[i] < shingles[j]:
            i += 1
        else:
            j += 1
    either = offsets[a + 1] - offsets[a] + offsets[b + 1] - offsets[b] - shared
    return shared / either
