"""The cluster tree: routing, nesting, determinism, balance and refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from core.errors import InputError
from core.retrieval.tree import ClusterTree


def unit_vectors(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def slow_route(tree: ClusterTree, vector: np.ndarray) -> list[int]:
    path, node = [], 0
    for centroids in tree.levels:
        distances = [float(((vector - centre) ** 2).sum()) for centre in centroids[node]]
        node = node * len(distances) + distances.index(min(distances))
        path.append(node)
    return path


def test_route_is_the_greedy_descent() -> None:
    tree = ClusterTree.fit(unit_vectors(600, 12, 0), (3, 4, 2), seed=0)
    assert tree.clusters == (3, 12, 24)
    queries = unit_vectors(200, 12, 1)
    assert tree.route(queries).tolist() == [slow_route(tree, query) for query in queries]


def test_route_of_nothing_and_of_one() -> None:
    tree = ClusterTree.fit(unit_vectors(100, 6, 0), (2, 3), seed=0)
    queries = unit_vectors(5, 6, 1)
    assert tree.route(queries[:0]).shape == (0, 2)
    alone = np.concatenate([tree.route(queries[i : i + 1]) for i in range(5)])
    assert np.array_equal(alone, tree.route(queries))


@settings(max_examples=15)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=3), st.integers(0, 1000))
def test_paths_nest_and_stay_in_range(branching: list[int], seed: int) -> None:
    vectors = unit_vectors(800, 8, seed)
    tree = ClusterTree.fit(vectors, tuple(branching), seed)
    path = tree.route(vectors)
    assert path.dtype == np.int32
    assert tree.clusters == tuple(np.cumprod(branching))
    for level, children in enumerate(branching):
        parent = path[:, level - 1] if level else 0
        assert np.array_equal(path[:, level] // children, np.broadcast_to(parent, len(path)))
    assert path.min() >= 0
    # Every leaf of a tree is somebody's leaf.
    assert set(path[:, -1]) == set(range(tree.clusters[-1]))


def test_equal_seeds_give_equal_bits_whatever_the_threads() -> None:
    vectors = unit_vectors(9000, 48, 0)
    trees = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            trees.append(ClusterTree.fit(vectors, (4, 4), seed=3))
    for one, two in zip(trees[0].levels, trees[1].levels, strict=True):
        assert one.tobytes() == two.tobytes()
    other = ClusterTree.fit(vectors, (4, 4), seed=4)
    assert other.levels[0].tobytes() != trees[0].levels[0].tobytes()


def test_saved_tree_is_the_same_tree(tmp_path: Path) -> None:
    vectors = unit_vectors(200, 6, 0)
    tree = ClusterTree.fit(vectors, (2, 3), seed=0)
    tree.save(tmp_path / "tree.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["tree.safetensors"]
    loaded = ClusterTree.load(tmp_path / "tree.safetensors")
    assert loaded.clusters == tree.clusters
    assert np.array_equal(loaded.route(vectors), tree.route(vectors))


def test_leaves_stay_even_on_skewed_data() -> None:
    # Seven in ten vectors around one direction: without balance one leaf of 16 takes most of them.
    rng = np.random.default_rng(0)
    centres = unit_vectors(16, 24, 1)
    topic = np.where(rng.random(8000) < 0.7, 0, rng.integers(1, 16, 8000))
    vectors = centres[topic] + 0.15 * rng.normal(size=(8000, 24))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for branching in ((16,), (4, 4)):
        tree = ClusterTree.fit(vectors, branching, seed=0)
        sizes = np.bincount(tree.route(vectors)[:, -1], minlength=16)
        assert sizes.max() < 2.5 * 8000 / 16, sizes


@pytest.mark.parametrize(("n", "branching"), [(3, (4,)), (100, (64, 64)), (0, (2,))])
def test_too_few_vectors_are_refused(n: int, branching: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as refusal:
        ClusterTree.fit(unit_vectors(n, 4, 0), branching, seed=0)
    message = str(refusal.value)
    assert message.startswith(f"branching {branching} needs {np.prod(branching)} windows")
    assert f"the corpus has {n} windows; use fewer levels or more text" in message


def test_copies_of_one_vector_are_no_corpus() -> None:
    copies = np.repeat(unit_vectors(1, 4, 0), 500, axis=0)
    with pytest.raises(InputError, match="1 distinct windows for 2 children"):
        ClusterTree.fit(copies, (2,), seed=0)


def test_copies_share_a_leaf_where_the_rest_suffices() -> None:
    copies = np.repeat(unit_vectors(1, 8, 0), 50, axis=0)
    vectors = np.concatenate([copies, unit_vectors(300, 8, 1)])
    path = ClusterTree.fit(vectors, (4,), seed=0).route(vectors)
    assert len(set(path[:50, 0])) == 1
