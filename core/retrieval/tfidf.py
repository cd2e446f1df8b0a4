"""The embedder that is fitted on the corpus itself: TF-IDF and a truncated SVD."""

import json
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from core.errors import InputError
from core.retrieval.vectors import batched, normalise
from core.writing import whole_folder

FEATURES = 40_000  # most frequent words kept
FIT_SAMPLE = 60_000  # texts that words, their weights and the components are fitted on
BATCH = 8_192  # texts embedded at once


class TfidfEmbedder:
    """Latent semantic analysis: words weighted by (1 + ln tf) idf, then a truncated SVD.

    Source: Deerwester et al., 1990. Equal seeds give equal bits on one machine.
    """

    def __init__(self, dimensions: int, seed: int) -> None:
        self.dimensions, self.seed = dimensions, seed
        self._vectorizer = _vectorizer()
        self._components_vd = np.empty((0, 0), np.float32)
        self._mean_d = np.empty(0, np.float32)

    def fit(self, texts: Iterable[str]) -> None:
        """Fit on a random sample of the texts; few texts or words give fewer dimensions.

        Raises InputError when no text has a word of two letters.
        """
        try:
            weights_nv = self._vectorizer.fit_transform(_sample(texts, FIT_SAMPLE, self.seed))
        except ValueError:  # scikit-learn's empty vocabulary
            raise InputError(
                "the train texts hold no word of two letters or digits, so TF-IDF cannot tell them "
                "apart; give more text or set tree.embedder to minilm"
            ) from None
        dimensions = min(self.dimensions, *weights_nv.shape)
        with threadpool_limits(1):  # the number of threads changes the last bits
            _, _, components_dv = randomized_svd(weights_nv, dimensions, random_state=self.seed)
        self._components_vd = np.ascontiguousarray(components_dv.T, dtype=np.float32)
        self._mean_d = np.asarray(weights_nv.mean(axis=0) @ self._components_vd).ravel()

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, d]; a text without a known word gets the mean direction."""
        batches = [self._embed_batch(batch) for batch in batched(texts, BATCH)]
        return np.concatenate([np.empty((0, self._components_vd.shape[1]), np.float32), *batches])

    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        vectors_nd = self._vectorizer.transform(texts) @ self._components_vd
        vectors_nd[~vectors_nd.any(axis=1)] = self._mean_d
        return normalise(vectors_nd)

    def save(self, folder: Path) -> None:
        words = self._vectorizer.get_feature_names_out().tolist()
        settings = {"dimensions": self.dimensions, "seed": self.seed, "words": words}
        tensors = {
            "idf_v": self._vectorizer.idf_,
            "components_vd": self._components_vd,
            "mean_d": self._mean_d,
        }
        with whole_folder(folder) as partial:
            (partial / "words.json").write_text(json.dumps(settings), encoding="utf-8")
            save_file(tensors, partial / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "TfidfEmbedder":
        settings = json.loads((folder / "words.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "weights.safetensors")
        embedder = cls(settings["dimensions"], settings["seed"])
        embedder._vectorizer = _vectorizer(vocabulary=settings["words"])
        embedder._vectorizer.idf_ = tensors["idf_v"]
        embedder._components_vd, embedder._mean_d = tensors["components_vd"], tensors["mean_d"]
        return embedder


def _vectorizer(vocabulary: list[str] | None = None) -> Any:
    return TfidfVectorizer(
        sublinear_tf=True, max_features=FEATURES, dtype=np.float32, vocabulary=vocabulary
    )


def _sample(texts: Iterable[str], size: int, seed: int) -> list[str]:
    """A uniform sample without replacement in one pass. Source: Vitter, 1985, algorithm R."""
    stream, rng = iter(texts), random.Random(seed)
    kept = list(islice(stream, size))
    for seen, text in enumerate(stream, start=size + 1):
        if (slot := rng.randrange(seen)) < size:
            kept[slot] = text
    return kept
