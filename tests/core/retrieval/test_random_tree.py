"""The random tree: the same shape, even leaves, and paths that no text moves."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from core.config import DataConfig, TreeConfig
from core.corpus.prepare import prepare_windows
from core.load import Router
from core.prepare import prepare
from core.probes import oracle_paths
from core.retrieval.keys import window_keys
from core.retrieval.random_tree import HashEmbedder, random_tree
from tests.core.small_runs import fact_config, train, write_corpus

BRANCHING = (3, 2, 4)


def paths(keys: list[str], seed: int = 0) -> np.ndarray:
    return random_tree(BRANCHING).route(HashEmbedder(BRANCHING, seed).embed(keys))


def test_shape_and_nesting() -> None:
    path_nl = paths([str(i) for i in range(2_000)])
    assert random_tree(BRANCHING).clusters == (3, 6, 24)
    assert [len(np.unique(level_n)) for level_n in path_nl.T] == [3, 6, 24]
    assert np.array_equal(path_nl[:, 1] // 2, path_nl[:, 0])
    assert np.array_equal(path_nl[:, 2] // 4, path_nl[:, 1])


@pytest.mark.parametrize("level", range(len(BRANCHING)))
def test_balance(level: int) -> None:
    """Pearson's statistic stays below the quantile that one even tree in 10,000 exceeds."""
    count = 20_000
    sizes = np.bincount(paths([f"train {i}" for i in range(count)])[:, level])
    even = count / len(sizes)
    assert ((sizes - even) ** 2 / even).sum() < chi2.ppf(0.9999, len(sizes) - 1)


def test_near_keys_do_not_share_leaves() -> None:
    leaf = paths([f"train {i}" for i in range(20_000)])[:, -1]
    assert np.mean(leaf[1:] == leaf[:-1]) == pytest.approx(1 / 24, abs=4 * 24**-0.5 / 20_000**0.5)


def test_the_seed_draws_another_tree() -> None:
    keys = [str(i) for i in range(1_000)]
    assert 0 < np.mean(paths(keys)[:, -1] == paths(keys, seed=1)[:, -1]) < 0.1


@given(st.lists(st.text(max_size=8), max_size=6))
def test_vectors_have_length_1_and_follow_their_own_key(keys: list[str]) -> None:
    embedder = HashEmbedder(BRANCHING, 0)
    vectors_nd = embedder.embed(keys)
    assert vectors_nd.shape == (len(keys), sum(BRANCHING))
    assert np.linalg.norm(vectors_nd, axis=1) == pytest.approx(1)
    alone = [embedder.embed([key])[0] for key in keys]
    assert all(np.array_equal(row, vector) for row, vector in zip(vectors_nd, alone, strict=True))


def test_the_path_is_the_hash_digit_by_digit() -> None:
    value = int(hashlib.blake2b(b"7 train 0").hexdigest(), 16)
    first, second, third = value % 3, value // 3 % 2, value // 6 % 4
    expected = [first, first * 2 + second, (first * 2 + second) * 4 + third]
    assert paths(["train 0"], seed=7).tolist() == [expected]


def test_save_and_load(tmp_path: Path) -> None:
    embedder = HashEmbedder(BRANCHING, 3)
    embedder.save(tmp_path / "embedder")
    keys = ["one", "two"]
    loaded = HashEmbedder.load(tmp_path / "embedder")
    assert np.array_equal(loaded.embed(keys), embedder.embed(keys))


TREE = TreeConfig(embedder="random", branching=BRANCHING)
Write = Callable[[int], DataConfig]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A corpus of 120 documents, each of a window or more, whose words the seed draws."""

    def write(seed: int) -> DataConfig:
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.jsonl"
        lines = [
            {"title": f"{seed} {i}", "text": " ".join(map(str, rng.integers(0, 99, 20 + i)))}
            for i in range(120)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return DataConfig(corpus=(str(path),), vocab_size=300, seq_len=32, min_tokens=8)

    return write


def test_both_keys_reach_one_path_and_all_windows_of_a_document(
    write: Write, tmp_path: Path
) -> None:
    data = write(0)
    dataset = prepare(data, TREE, tmp_path / "cache")
    windows = dataset.test
    assert np.array_equal(windows.path_prefix_nl, windows.path_document_nl)
    assert dataset.agreement == (1.0, 1.0, 1.0)
    document_n = prepare_windows(data, tmp_path / "cache").split("test").document
    assert len(np.unique(document_n)) < len(document_n)
    for document in np.unique(document_n):
        assert len(np.unique(windows.path_document_nl[document_n == document], axis=0)) == 1


def test_no_text_moves_a_path(write: Write, tmp_path: Path) -> None:
    splits = [prepare_windows(write(seed), tmp_path / "cache").split("train") for seed in (0, 1)]
    texts, keys = (
        [dict(zip(split.document.tolist(), make(split), strict=True)) for split in splits]
        for make in (lambda s: s.key_texts(None), lambda s: window_keys(s, TREE, None))
    )
    shared = texts[0].keys() & texts[1].keys()
    assert len(shared) > 80
    assert all(texts[0][document] != texts[1][document] for document in shared)
    assert all(keys[0][document] == keys[1][document] for document in shared)


def test_a_run_trains_on_it_and_the_oracle_knows_the_documents(tmp_path: Path) -> None:
    tree = {"embedder": "random", "branching": [2, 2]}
    config = fact_config(write_corpus(tmp_path / "text"), tree=tree)
    record = json.loads((train(config, tmp_path) / "record.json").read_text())
    assert record["embedder"] == "random" and record["agreement_leaf"] == 1.0
    assert record["loss_test_prefix"] == record["loss_test_document"] != record["loss_test_off"]
    router = Router.open(config.data, config.tree, tmp_path / "cache")
    split = prepare_windows(config.data, tmp_path / "cache").split("train")
    found = oracle_paths([(0,), (7,)], router, split, config.tree)
    assert np.array_equal(found, router.route(["train 0", "train 7"]))


def test_a_free_text_is_routed_by_its_own_hash(write: Write, tmp_path: Path) -> None:
    router = Router.open(write(0), TREE, tmp_path / "cache")
    assert np.array_equal(router.route(["gold", "iron"]), paths(["gold", "iron"]))
