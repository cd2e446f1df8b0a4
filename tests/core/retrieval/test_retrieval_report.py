"""Figures about a tree: by hand, and against counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.retrieval.report import (
    agreement,
    chance_agreement,
    leaf_sizes,
    shuffle_paths,
)

# Two levels of 2 and 4 clusters; leaf 3 is empty.
PATHS = np.array([[0, 0], [0, 1], [0, 1], [1, 2], [0, 0], [0, 1], [0, 0], [1, 2]], np.int32)


def nested(leaves: list[int], children: int = 3) -> np.ndarray:
    leaf = np.array(leaves, np.int32)
    return np.stack([leaf // children, leaf], axis=1)


def test_leaf_sizes_count_empty_leaves() -> None:
    assert leaf_sizes(PATHS, 4).tolist() == [3, 3, 2, 0]


def test_agreement_per_level() -> None:
    other = PATHS.copy()
    other[0] = [0, 1]
    other[1] = [1, 2]
    assert agreement(PATHS, other) == (7 / 8, 6 / 8)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_chance_is_the_agreement_over_all_pairs(leaves: list[int]) -> None:
    path = nested(leaves)
    pairs = [[a == b for a in level for b in level] for level in path.T]
    assert chance_agreement(path) == pytest.approx([np.mean(level) for level in pairs])


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(0, 1000))
def test_shuffle_keeps_the_paths_and_as_few_places_as_it_must(leaves: list[int], seed: int) -> None:
    path = nested(leaves)
    shuffled = shuffle_paths(path, seed)
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, path))
    kept = int((shuffled == path).all(axis=1).sum())
    most = max(leaves.count(leaf) for leaf in leaves)
    assert kept == max(0, 2 * most - len(leaves))
    assert np.array_equal(shuffled, shuffle_paths(path, seed))


def test_shuffle_depends_on_the_seed_and_leaves_its_argument() -> None:
    path = nested(list(range(9)) * 10)
    before = path.copy()
    assert not np.array_equal(shuffle_paths(path, 0), shuffle_paths(path, 1))
    assert np.array_equal(path, before)
