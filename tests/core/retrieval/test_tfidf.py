"""TF-IDF and SVD: against the formulas written out, and as a fitted, saved thing."""

import math
from pathlib import Path

import numpy as np
import pytest

from core.errors import InputError
from core.retrieval import tfidf
from core.retrieval.tfidf import TfidfEmbedder

COOKING = ["flour", "butter", "sugar", "oven", "bake", "bread", "dough", "salt", "cream", "egg"]
SAILING = ["sail", "mast", "rope", "anchor", "harbour", "wind", "deck", "crew", "storm", "helm"]


def texts(n: int, seed: int = 0) -> list[str]:
    """Even texts are about cooking, odd ones about sailing."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice((COOKING, SAILING)[i % 2], 12)) for i in range(n)]


def slow_tfidf(corpus: list[str]) -> np.ndarray:
    """(1 + ln tf)(1 + ln((1 + n) / (1 + df))), rows of length 1, words in alphabetical order."""
    words = sorted({word for text in corpus for word in text.split()})
    rows = []
    for text in corpus:
        row = []
        for word in words:
            tf = text.split().count(word)
            df = sum(word in other.split() for other in corpus)
            idf = 1 + math.log((1 + len(corpus)) / (1 + df))
            row.append((1 + math.log(tf)) * idf if tf else 0.0)
        rows.append(np.array(row) / math.sqrt(sum(x * x for x in row)))
    return np.array(rows)


def test_vectors_are_those_of_the_formulas() -> None:
    corpus = texts(30)
    embedder = TfidfEmbedder(5, seed=0)
    embedder.fit(corpus)
    weights = slow_tfidf(corpus)
    projected = weights @ np.linalg.svd(weights)[2][:5].T
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    # Singular vectors are free in sign, cosines are not.
    ours = embedder.embed(corpus)
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=2e-3)


def test_same_topic_is_near_and_prefix_finds_its_document() -> None:
    embedder = TfidfEmbedder(8, seed=0)
    embedder.fit(texts(200))
    held_out = texts(40, seed=1)
    vectors = embedder.embed(held_out)
    prefixes = embedder.embed(" ".join(text.split()[:6]) for text in held_out)
    assert all(np.argmax(vectors @ p) % 2 == i % 2 for i, p in enumerate(prefixes))


def test_rows_are_unit_float32_in_the_order_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = TfidfEmbedder(6, seed=0)
    embedder.fit(iter(texts(50)))
    corpus = [*texts(20), "", "no word known here"]
    whole = embedder.embed(corpus)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    monkeypatch.setattr(tfidf, "BATCH", 3)
    np.testing.assert_array_equal(embedder.embed(iter(corpus)), whole)
    assert embedder.embed([]).shape == (0, 6)


def test_a_text_without_known_words_lies_near_the_mean() -> None:
    embedder = TfidfEmbedder(6, seed=0)
    embedder.fit(texts(101))
    mean = embedder.embed(texts(101)).mean(axis=0)
    assert embedder.embed(["zzz"])[0] @ mean / np.linalg.norm(mean) > 0.99


def test_few_texts_give_fewer_dimensions() -> None:
    embedder = TfidfEmbedder(128, seed=0)
    embedder.fit(texts(4))
    assert embedder.embed(texts(7)).shape == (7, 4)


def test_equal_seeds_give_equal_bits() -> None:
    corpus, vectors = texts(300), []
    for seed in (0, 0, 1):
        embedder = TfidfEmbedder(6, seed)
        embedder.fit(corpus)
        vectors.append(embedder.embed(corpus).tobytes())
    assert vectors[0] == vectors[1] != vectors[2]


def test_only_a_uniform_sample_is_fitted() -> None:
    numbers = [str(i) for i in range(1000)]
    drawn = [tfidf._sample(iter(numbers), 100, seed) for seed in range(50)]
    assert all(len(set(sample)) == 100 for sample in drawn)
    counts = np.bincount([int(x) for sample in drawn for x in sample], minlength=1000)
    tenths = counts.reshape(10, 100).sum(axis=1)  # 500 expected in each, s.d. about 20
    assert abs(tenths - 500).max() < 100
    assert tfidf._sample(numbers[:7], 100, 0) == numbers[:7]
    assert drawn[0] != drawn[1]


def test_loaded_embedder_gives_the_same_bits(tmp_path: Path) -> None:
    embedder = TfidfEmbedder(6, seed=0)
    embedder.fit(texts(50))
    embedder.save(tmp_path / "embedder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embedder"]
    loaded = TfidfEmbedder.load(tmp_path / "embedder")
    corpus = [*texts(20, seed=5), "unknown"]
    assert loaded.embed(corpus).tobytes() == embedder.embed(corpus).tobytes()


@pytest.mark.parametrize("corpus", [[], [""], ["a b", "! ?"]])
def test_texts_without_words_are_refused(corpus: list[str]) -> None:
    with pytest.raises(InputError, match="hold no word of two letters"):
        TfidfEmbedder(4, seed=0).fit(corpus)
