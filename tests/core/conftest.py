"""A small dataset without text, and run configs to go with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from core.config import RunConfig, parse_config
from core.dataset import PADDING, Dataset, Rows, Windows

VOCABULARY, SEQ_LEN, LEVELS = 300, 16, (2, 4)

torch.set_num_threads(1)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section."""
    both = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if nested else value
    return both


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    base: dict[str, Any] = {
        "anchor": "d16",
        "data": {"vocab_size": VOCABULARY, "seq_len": SEQ_LEN, "min_tokens": 4},
        "tree": {"branching": [2, 2]},
        "train": {"tokens": 20 * 4 * SEQ_LEN, "batch_size": 4, "precision": "fp32"},
        "evaluate": {"validation_windows": 24, "test_windows": 24},
    }

    def make(**changes: Any) -> RunConfig:
        return parse_config(merged(base, changes), "test")

    return make


def _paths(rng: np.random.Generator, n: int) -> np.ndarray:
    leaf = rng.integers(0, LEVELS[1], n)
    return np.stack([leaf // 2, leaf], axis=1).astype(np.int32)


def _held_out(rng: np.random.Generator, n: int) -> Windows:
    length_n = rng.integers(4, SEQ_LEN + 2, n).astype(np.int32)
    tokens_nt = rng.integers(1, VOCABULARY, (n, SEQ_LEN + 1)).astype(np.uint16)
    tokens_nt[np.arange(SEQ_LEN + 1) >= length_n[:, None]] = 0
    return Windows(
        tokens_nt=tokens_nt,
        length_n=length_n,
        prefix_n=(length_n // 2).astype(np.int32),
        path_prefix_nl=_paths(rng, n),
        path_document_nl=_paths(rng, n),
        source_n=np.zeros(n, np.uint8),
    )


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """40 packed rows whose next token often is the last plus one, 30 windows a held-out split."""
    rng = np.random.default_rng(0)
    n = 40
    start_n = rng.integers(1, VOCABULARY - SEQ_LEN - 2, n)
    tokens_nt = (start_n[:, None] + np.arange(SEQ_LEN + 1)).astype(np.uint16)
    segments_nt = np.zeros((n, SEQ_LEN + 1), np.uint8)
    segments_nt[::2, 9:] = 1
    segments_nt[::3, 14:] = PADDING
    same = (segments_nt[:, 1:] == segments_nt[:, :-1]) & (segments_nt[:, 1:] != PADDING)
    return Dataset(
        train=Rows(tokens_nt, segments_nt, _paths(rng, n)),
        validation=_held_out(rng, 30),
        test=_held_out(rng, 30),
        token_bytes_v=np.r_[0, rng.integers(1, 9, VOCABULARY - 1)].astype(np.int32),
        clusters=LEVELS,
        train_tokens=int(same.sum()),
        agreement=(0.5, 0.25),
        sources=("made up",),
        digest="0" * 12,
    )
