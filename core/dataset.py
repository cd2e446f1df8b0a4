"""What training and evaluation read: arrays on disk, mapped, never loaded whole."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Segment id of padding in packed rows.
PADDING = 255


@dataclass(frozen=True)
class Rows:
    """Packed training rows. A row holds windows of one leaf, so it has one path.

    tokens_nt   uint16 [n, seq_len + 1]  the model reads [:, :-1] and predicts [:, 1:]
    segments_nt uint8  [n, seq_len + 1]  0, 1, ... per window in the row; PADDING at the end
    path_nl     int32  [n, levels]       cluster id at each level, counted over the whole level
    """

    tokens_nt: NDArray[np.uint16]
    segments_nt: NDArray[np.uint8]
    path_nl: NDArray[np.int32]


@dataclass(frozen=True)
class Windows:
    """Held-out windows, one a row, as evaluation reads them.

    tokens_nt  uint16 [n, seq_len + 1]  padded with 0 behind length_n
    length_n   int32  [n]               tokens of the window, the leading end-of-text included
    prefix_n   int32  [n]               tokens that the prefix key sees; the rest is scored
    path_*_nl  int32  [n, levels]       paths by the prefix key and by the whole window
    source_n   uint8  [n]               index into Dataset.sources
    """

    tokens_nt: NDArray[np.uint16]
    length_n: NDArray[np.int32]
    prefix_n: NDArray[np.int32]
    path_prefix_nl: NDArray[np.int32]
    path_document_nl: NDArray[np.int32]
    source_n: NDArray[np.uint8]

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Windows":
        """Some of the windows, in the order of `chosen`."""
        return Windows(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Dataset:
    """One corpus under one tokenizer and one tree."""

    train: Rows
    validation: Windows
    test: Windows
    token_bytes_v: NDArray[np.int32]  # UTF-8 bytes of each token; 0 for end-of-text
    clusters: tuple[int, ...]  # per level
    train_tokens: int  # predicted tokens of one epoch
    # per level, share of test windows whose prefix and document agree; 1 in a random tree, where
    # both keys are the document's id
    agreement: tuple[float, ...]
    sources: tuple[str, ...]
    digest: str  # SHA-256 of the arrays, 12 digits


@dataclass(frozen=True)
class TreeReport:
    """How good a tree's routing is, known before anything trains on it."""

    clusters: tuple[int, ...]  # per level
    leaf_rows: tuple[int, ...]  # packed training rows of each leaf
    agreement: tuple[float, ...]  # per level, as in Dataset
    chance_agreement: tuple[float, ...]  # per level, of two unrelated windows


def dataset_folder(cache: Path, fingerprint: str) -> Path:
    """Where the dataset of a tree's fingerprint lies; meta.json is written last."""
    return cache / "trees" / fingerprint


def is_prepared(folder: Path) -> bool:
    """Whether the dataset stands there whole."""
    return (folder / "meta.json").exists()


def read_tree_report(folder: Path) -> TreeReport | None:
    """The report of a prepared dataset, none before it is prepared."""
    path = folder / "meta.json"
    if not path.exists():
        return None
    meta = json.loads(path.read_text(encoding="utf-8"))
    return TreeReport(**{name: tuple(meta[name]) for name in TreeReport.__dataclass_fields__})
