"""k-means: against scikit-learn, against loops, and what the balance does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from core.retrieval import kmeans as module
from core.retrieval.kmeans import TooFewDistinctError, balance, kmeans, nearest, plus_plus


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def blobs(sizes: list[int], spread: float, seed: int, d: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.linalg.qr(rng.normal(size=(d, d)))[0][: len(sizes)]
    return unit(centres[truth] + spread * rng.normal(size=(len(truth), d))), truth


def inertia(vectors: np.ndarray, centroids: np.ndarray) -> float:
    gaps = vectors - centroids[nearest(vectors, centroids)]
    return float((gaps**2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_same_partition_as_scikit_learn_on_separable_data(seed: int) -> None:
    vectors, truth = blobs([60, 50, 40, 70, 55, 45], 0.05, seed)
    ours = nearest(vectors, kmeans(vectors, 6, np.random.default_rng(seed)))
    theirs = KMeans(6, n_init=10, random_state=seed).fit_predict(vectors)
    assert adjusted_rand_score(theirs, truth) == 1
    assert adjusted_rand_score(theirs, ours) == 1


SKEWED = [4000, 1500, 800, 500, 300, 200, 100, 50]


@pytest.mark.parametrize("seed", range(3))
def test_inertia_is_near_scikit_learns_where_clusters_blend(seed: int) -> None:
    vectors, _ = blobs(SKEWED, 0.25, seed)
    ours = kmeans(vectors, 8, np.random.default_rng(seed))
    theirs = KMeans(8, n_init=3, random_state=seed).fit(vectors)
    assert inertia(vectors, ours) < 1.1 * theirs.inertia_


@pytest.mark.parametrize("seed", range(3))
def test_sizes_are_more_even_than_scikit_learns_on_skewed_clusters(seed: int) -> None:
    vectors, _ = blobs(SKEWED, 0.08, seed)
    ours = nearest(vectors, kmeans(vectors, 8, np.random.default_rng(seed)))
    theirs = KMeans(8, n_init=3, random_state=seed).fit_predict(vectors)
    assert np.bincount(ours).max() < 0.8 * np.bincount(theirs).max()


def test_nearest_equals_a_loop_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5)).astype(np.float32)
    centroids = rng.normal(size=(4, 5)).astype(np.float32)
    expected = [min(range(4), key=lambda c: sum((v - centroids[c]) ** 2)) for v in vectors]
    assert nearest(vectors, centroids).tolist() == expected


def test_nearest_gives_the_lower_id_on_a_tie() -> None:
    centroids = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
    assert nearest(np.array([[1, 0]], np.float32), centroids).tolist() == [1]


def test_plus_plus_draws_by_squared_distance() -> None:
    # From 0, the distances 1 and 3 are drawn as 1 : 9; only starts at 0 count.
    line = np.array([[0.0], [1.0], [3.0]], np.float32)
    rng = np.random.default_rng(0)
    pairs = [plus_plus(line, 2, rng)[:, 0].tolist() for _ in range(6000)]
    second = [b for a, b in pairs if a == 0]
    assert second.count(3.0) / len(second) == pytest.approx(0.9, abs=0.02)  # s.e. 0.007


def test_plus_plus_refuses_too_few_distinct_vectors() -> None:
    twice = unit(np.array([[1, 2], [1, 2], [3, 1], [3, 1]]))
    assert len(np.unique(plus_plus(twice, 2, np.random.default_rng(0)), axis=0)) == 2
    with pytest.raises(TooFewDistinctError, match="2 distinct windows for 3 children"):
        plus_plus(twice, 3, np.random.default_rng(0))
    with pytest.raises(TooFewDistinctError, match="0 distinct"):
        plus_plus(twice[:0], 2, np.random.default_rng(0))


@given(st.lists(st.integers(0, 5), min_size=12, max_size=200), st.integers(0, 99))
def test_balance_moves_only_out_of_clusters_above_the_cap(labels: list[int], seed: int) -> None:
    before = np.array(labels, np.int32)
    after = balance(before, 6, np.random.default_rng(seed))
    old, new = np.bincount(before, minlength=6), np.bincount(after, minlength=6)
    assert new.max() <= old.max()
    assert new.min() >= old.min()
    if old.max() <= 1.5 * len(labels) / 6 and old.min() > 0:
        assert np.array_equal(before, after)
    else:
        assert not np.array_equal(before, after)


def test_balance_splits_the_surplus_evenly_with_the_smallest() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), [60, 20, 15, 5])
    sizes = np.bincount(balance(labels, 4, np.random.default_rng(0)))
    assert sizes.tolist() == [30, 20, 15, 35]  # the cap is 37.5


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_equal_seeds_give_equal_bits(seed: int) -> None:
    vectors, _ = blobs([50, 30, 20], 0.3, 1)
    first, second = (kmeans(vectors, 4, np.random.default_rng(seed), sample=64) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32


def test_every_step_sees_a_fresh_sample() -> None:
    # One centroid is the mean of the last sample drawn: more steps give another sample's mean.
    vectors, _ = blobs([500, 500], 0.3, 2)
    means = [
        kmeans(vectors, 1, np.random.default_rng(0), steps=steps, sample=100) for steps in (1, 2, 3)
    ]
    assert not np.allclose(means[0], means[1])
    assert not np.allclose(means[1], means[2])
    whole = kmeans(vectors, 1, np.random.default_rng(0), sample=1000)
    np.testing.assert_allclose(whole[0], vectors.mean(axis=0), atol=1e-6)
