"""Held-out loss under every key, on the same tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.accounting import generic_path, replaced_layers
from core.config import RunConfig
from core.dataset import PADDING, Dataset, Windows
from core.memory_types import GENERIC, TOKEN_TYPES
from core.model import Model
from core.record import KEYS
from core.retrieval.report import shuffle_paths

BATCH = 64  # windows
SAMPLE_SEED = 0  # the scored windows are the same for every run


@dataclass
class Score:
    """Sums over windows: nats, predicted tokens and their UTF-8 bytes."""

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0

    def add(self, nll: Tensor, sizes: Tensor) -> None:
        self.nats += float(nll.double().sum())
        self.tokens += nll.numel()
        self.bytes += int(sizes.sum())

    @property
    def loss(self) -> float:
        """nats/token"""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / self.bytes / float(np.log(2))


def evaluate(model: Model, dataset: Dataset, config: RunConfig) -> dict[str, float]:
    """`loss_SPLIT_KEY` (nats/token) and `bpb_SPLIT_KEY` (bits/byte) for both splits and their keys.

    Keys score the second part of each window; `whole` scores all of it under the document key.
    Where the memory has no path, or there is none, one pass stands for all routed keys. A memory
    that replaces FFNs has no loss under `off`: nothing is left in their place. A run with
    a generic mix also has the loss of its generic block, on test.
    """
    counts = {
        "validation": config.evaluate.validation_windows,
        "test": config.evaluate.test_windows,
    }
    columns: dict[str, float] = {}
    for split, keys in KEYS.items():
        windows = sample(getattr(dataset, split), counts[split])
        for key, score in _scores(model, windows, keys, dataset.token_bytes_v).items():
            columns[f"loss_{split}_{key}"] = score.loss
            columns[f"bpb_{split}_{key}"] = score.bits_per_byte
    if config.memory.generic_mix:
        score = _generic_score(model, sample(dataset.test, counts["test"]), dataset.token_bytes_v)
        columns |= {"loss_test_generic": score.loss, "bpb_test_generic": score.bits_per_byte}
    return columns


def sample(windows: Windows, count: int) -> Windows:
    """At most `count` windows, drawn alike for every run, the longest first to pad less."""
    return windows.take(sampled(windows, count))


def sampled(windows: Windows, count: int) -> NDArray[np.int64]:
    """The numbers of the windows that `sample` gives."""
    chosen = np.random.default_rng(SAMPLE_SEED).permutation(len(windows.length_n))[:count]
    return chosen[np.argsort(-windows.length_n[chosen], kind="stable")]


def _scores(
    model: Model, windows: Windows, keys: tuple[str, ...], token_bytes_v: NDArray[np.int32]
) -> dict[str, Score]:
    if replaced_layers(model.config):
        keys = tuple(key for key in keys if key != "off")
    document, whole = score_windows(model, windows, windows.path_document_nl, token_bytes_v)
    scores = dict.fromkeys(keys, document) | {"whole": whole}
    for key, path_nl in _other_paths(model.config.memory.type, windows).items():
        if key in keys:
            scores[key] = score_windows(model, windows, path_nl, token_bytes_v)[0]
    return scores


def _generic_score(model: Model, windows: Windows, token_bytes_v: NDArray[np.int32]) -> Score:
    """Under the mix's generic block: more parameters and no context."""
    path_l = np.array(generic_path(model.config), np.int32)
    path_nl = np.tile(path_l, (len(windows.length_n), 1))
    return score_windows(model, windows, path_nl, token_bytes_v)[0]


def _other_paths(memory: str, windows: Windows) -> dict[str, NDArray[np.int32] | None]:
    """What routes each key whose loss differs from the document key's; None: memory off."""
    if memory == "none":
        return {}
    if memory == GENERIC or memory in TOKEN_TYPES:
        return {"off": None}
    shuffled_nl = shuffle_paths(windows.path_document_nl, SAMPLE_SEED)
    return {"prefix": windows.path_prefix_nl, "shuffled": shuffled_nl, "off": None}


@torch.no_grad()
def score_windows(
    model: Model,
    windows: Windows,
    path_nl: NDArray[np.int32] | None,
    token_bytes_v: NDArray[np.int32],
) -> tuple[Score, Score]:
    """Scores of the second parts and of whole windows, routed by `path_nl` (None: memory off)."""
    second, whole = Score(), Score()
    sizes_v = torch.from_numpy(token_bytes_v)
    for rows in _batches(len(windows.length_n)):
        tokens_bt, segments_bt, prefix_b = padded(windows, rows)
        path_bl = None if path_nl is None else torch.from_numpy(path_nl[rows].astype(np.int64))
        nll_bt = token_losses(model, tokens_bt, segments_bt, path_bl)
        position_t = torch.arange(1, tokens_bt.shape[1])
        real_bt = segments_bt[:, 1:] != PADDING
        second_bt = real_bt & (position_t >= prefix_b[:, None])
        targets_bt = tokens_bt[:, 1:]
        second.add(nll_bt[second_bt], sizes_v[targets_bt[second_bt]])
        whole.add(nll_bt[real_bt], sizes_v[targets_bt[real_bt]])
    return second, whole


def token_losses(
    model: Model, tokens_bt: Tensor, segments_bt: Tensor, path_bl: Tensor | None
) -> Tensor:
    """Nats of each next token [b, t - 1], scores in fp32; `path_bl` None: memory off."""
    to = model.device
    fetches = None if path_bl is None else model.fetch(path_bl.to(to))
    hidden_btd = model.hidden(tokens_bt[:, :-1].to(to), segments_bt[:, :-1].to(to), fetches).float()
    targets_bt = tokens_bt[:, 1:].to(to)
    losses = [
        F.cross_entropy(F.linear(hidden_td, model.head_vd), target_t, reduction="none")
        for hidden_td, target_t in zip(hidden_btd, targets_bt, strict=True)
    ]
    return torch.stack(losses).cpu()


def _batches(n: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, n, BATCH))


def padded(windows: Windows, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and segments [b, t] of some windows, as long as their longest, and prefixes [b]."""
    length_b = windows.length_n[rows]
    longest = int(length_b.max())
    tokens_bt = torch.from_numpy(windows.tokens_nt[rows, :longest].astype(np.int64))
    padded_bt = np.arange(longest)[None, :] >= length_b[:, None]
    segments_bt = torch.from_numpy(np.where(padded_bt, PADDING, 0).astype(np.uint8))
    return tokens_bt, segments_bt, torch.from_numpy(windows.prefix_n[rows].astype(np.int64))
