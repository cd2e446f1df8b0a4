"""Whole groups of near-duplicates to train, validation and test."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError

SPLITS = ("train", "validation", "test")


def content_hash(title: str, text: str) -> int:
    """63-bit hash of a document's title and text."""
    digest = blake2b(f"{title}\n{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def split_groups(
    group_n: NDArray[np.int64],
    content_n: NDArray[np.int64],
    validation: float,
    test: float,
    seed: int,
) -> NDArray[np.uint8]:
    """Index into SPLITS of each document: [n]; all documents of a group have the same.

    A group is drawn by a hash of the seed and its smallest content hash, so neither the order of
    reading nor other documents decide. Shares are shares of the groups.
    Raises InputError when a split is empty.
    """
    groups, group_of_n = np.unique(group_n, return_inverse=True)
    key_g = np.full(len(groups), np.iinfo(np.int64).max)
    np.minimum.at(key_g, group_of_n, content_n)
    draw_g = np.array([_uniform(seed, key) for key in key_g.tolist()])
    split_g = np.where(draw_g < test, 2, np.where(draw_g < test + validation, 1, 0)).astype(
        np.uint8
    )
    empty = [name for index, name in enumerate(SPLITS) if not (split_g == index).any()]
    if empty:
        raise InputError(
            f"{' and '.join(empty)} would be empty: the corpus is too small, it holds "
            f"{len(group_n)} documents in {len(groups)} groups of near-duplicates; "
            "give more text or raise data.validation and data.test"
        )
    return split_g[group_of_n]


def _uniform(seed: int, key: int) -> float:
    digest = blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
