"""Vectors kept by the content of their text, and the small steps that embedders share."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
BATCH = 1_024  # texts looked up, embedded and stored at once: what a killed process loses
ASKED = 500  # keys in one query; SQLite's older limit is 999
TABLE = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)"
WAIT = 60.0  # seconds for another process's write


class VectorCache:
    """An SQLite file of vectors float32 [dimensions], keyed by the SHA-256 of the text.

    One file an embedder. Rows are only ever added, a batch in one transaction, so a killed process
    leaves whole batches, and two processes can fill one file.
    """

    def __init__(self, file: Path, dimensions: int) -> None:
        self.file, self.dimensions = file, dimensions

    def embed(self, texts: Iterable[str], compute: Callable[[list[str]], Vectors]) -> Vectors:
        """Vectors float32 [n, dimensions], in the order of the texts; computes those not kept."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        store = sqlite3.connect(self.file, timeout=WAIT)
        try:
            with store:
                store.execute(TABLE)
            parts = [self._batch(store, batch, compute) for batch in batched(texts, BATCH)]
        finally:
            store.close()
        return np.concatenate([np.empty((0, self.dimensions), np.float32), *parts])

    def _batch(
        self,
        store: sqlite3.Connection,
        texts: list[str],
        compute: Callable[[list[str]], Vectors],
    ) -> Vectors:
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        by_key = dict(zip(keys, texts, strict=True))
        known = _select(store, list(by_key))
        missing = [key for key in by_key if key not in known]
        if missing:
            vectors_nd = compute([by_key[key] for key in missing]).astype(np.float32)
            added = {key: row.tobytes() for key, row in zip(missing, vectors_nd, strict=True)}
            with store:
                store.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", added.items())
            known |= added
        flat = b"".join(known[key] for key in keys)
        return np.frombuffer(flat, np.float32).reshape(len(keys), self.dimensions)


def _select(store: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), ASKED):
        asked = keys[start : start + ASKED]
        marks = ",".join("?" * len(asked))
        query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
        found.update(store.execute(query, asked).fetchall())
    return found


def normalise(vectors_nd: Vectors) -> Vectors:
    """Rows scaled to length 1."""
    lengths_n1 = np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    return np.asarray(vectors_nd / lengths_n1, dtype=np.float32)


def batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of up to `size` texts, in order."""
    stream = iter(texts)
    while batch := list(islice(stream, size)):
        yield batch
