"""Blocked clusters are routed around; the rest of the bank serves as before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.blocking import block_best, block_shares, block_subtree, route_open
from core.errors import InputError
from core.retrieval.tree import ClusterTree
from tests.core.retrieval.test_tree import unit_vectors


@pytest.fixture(scope="module")
def tree() -> ClusterTree:
    return ClusterTree.fit(unit_vectors(600, 8, 0), (4, 3), seed=0)


def slow_route(tree: ClusterTree, vector: np.ndarray, open_leaves: np.ndarray) -> list[int]:
    """The greedy descent over a dictionary of distances, one child at a time."""
    path, node = [], 0
    for level, centroids in enumerate(tree.levels):
        below = tree.clusters[-1] // tree.clusters[level]
        best = {}
        for child, centre in enumerate(centroids[node]):
            cluster = node * len(centroids[node]) + child
            if any(open_leaves[cluster * below + i] for i in range(below)):
                best[cluster] = float(((vector - centre) ** 2).sum())
        node = min(best, key=best.__getitem__)
        path.append(node)
    return path


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.1, 1.0))
def test_routes_around_closed_leaves(tree: ClusterTree, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(20, 8, seed + 1)
    open_nc = rng.random((20, 12)) < share
    open_nc[np.arange(20), rng.integers(0, 12, 20)] = True
    found = route_open(tree, vectors, open_nc)
    assert found.tolist() == [slow_route(tree, v, o) for v, o in zip(vectors, open_nc, strict=True)]
    assert open_nc[np.arange(20), found[:, -1]].all()


def test_with_all_open_it_is_the_trees_own_route(tree: ClusterTree) -> None:
    vectors = unit_vectors(200, 8, 5)
    assert np.array_equal(route_open(tree, vectors, np.ones((200, 12), bool)), tree.route(vectors))


def test_a_subtree_moves_its_own_texts_alone(tree: ClusterTree) -> None:
    vectors = unit_vectors(200, 8, 5)
    before = tree.route(vectors)
    for level, cluster in ((1, 2), (2, 7)):
        open_nc = block_subtree(level, cluster).open_leaves(tree, vectors)
        assert (~open_nc).sum(1).tolist() == [12 // tree.clusters[level - 1]] * 200
        after = route_open(tree, vectors, open_nc)
        inside = before[:, level - 1] == cluster
        assert 0 < inside.sum() < 200
        assert np.array_equal(after[~inside], before[~inside])
        assert (after[:, level - 1] != cluster).all()
    one_leaf = block_subtree(2, 7).open_leaves(tree, vectors)
    moved = before[:, 1] == 7
    assert (route_open(tree, vectors, one_leaf)[moved, 0] == 2).all()  # a sibling is the next best


def test_the_adversary_takes_what_the_router_would(tree: ClusterTree) -> None:
    vectors = unit_vectors(100, 8, 6)
    before = tree.route(vectors)
    quarter = block_best(4).open_leaves(tree, vectors)
    for own, open_leaves in zip(before, quarter, strict=True):
        assert set(np.flatnonzero(~open_leaves) // 3) == {own[0]}
    half = block_best(2).open_leaves(tree, vectors)
    second = route_open(tree, vectors, quarter)
    for own, next_, open_leaves in zip(before, second, half, strict=True):
        assert set(np.flatnonzero(~open_leaves) // 3) == {own[0], next_[0]}
    twelfth = block_best(12).open_leaves(tree, vectors)
    assert [list(np.flatnonzero(~leaves)) for leaves in twelfth] == [[own[1]] for own in before]


@pytest.mark.parametrize("k", [0, 1, 5, 24])
def test_shares_that_no_level_can_give_are_refused(tree: ClusterTree, k: int) -> None:
    with pytest.raises(InputError, match=rf"1/{k} of the bank.*\(4, 12\)"):
        block_best(k).open_leaves(tree, unit_vectors(2, 8, 0))


@pytest.mark.parametrize(("level", "cluster"), [(0, 0), (3, 0), (1, 4), (2, -1)])
def test_clusters_that_do_not_exist_are_refused(
    tree: ClusterTree, level: int, cluster: int
) -> None:
    with pytest.raises(InputError, match="the tree has clusters"):
        block_subtree(level, cluster).open_leaves(tree, unit_vectors(2, 8, 0))


def test_shares_are_those_that_the_tree_can_give() -> None:
    assert [b.name for b in block_shares((4, 16))] == [f"best 1/{k}" for k in (16, 8, 4, 2)]
    assert [b.name for b in block_shares((3, 9))] == ["best 1/9", "best 1/3"]
    with pytest.raises(InputError, match="no k from 2 to 16 divides"):
        block_shares((17, 289))
