"""What each step trains on: rows of text, their paths, and the targets of the whole step."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.accounting import generic_path
from core.config import RunConfig
from core.dataset import Dataset, Rows
from core.errors import InputError
from core.model import predicted

MIX_STREAM = 1  # keeps the generic mix's draws apart from the order of the rows


@dataclass(frozen=True)
class Batch:
    """rows, segments [b, t + 1] and paths [b, levels] that this run trains on.

    targets: predicted tokens of the step, those that train.tree_part leaves to other runs included;
    own: those of these rows.
    """

    rows_bt: Tensor
    segments_bt: Tensor
    path_bl: Tensor
    targets: int
    own: int


class Batches:
    """The batch of any step, a function of the config and the text alone."""

    def __init__(self, config: RunConfig, rows: Rows, device: str) -> None:
        self.config, self.rows, self.device = config, rows, device
        self.first = config.start.steps if config.start else 0  # of the text, in one order

    def at(self, step: int) -> Batch:
        """Raises InputError where the text does not fill one batch."""
        train = self.config.train
        n, limit = len(self.rows.tokens_nt), epoch_rows(self.config)
        chosen = batch_rows(n, train.batch_size, self.first + step, self.config.seed, limit)
        rows_bt = torch.from_numpy(self.rows.tokens_nt[chosen].astype(np.int64))
        segments_bt = torch.from_numpy(self.rows.segments_nt[chosen])
        path_bl = torch.from_numpy(self._paths(chosen, step))
        targets = own = int(predicted(segments_bt).sum())
        if train.tree_part:
            own_b = torch.isin(path_bl[:, 0], torch.tensor(train.tree_part))
            rows_bt, segments_bt, path_bl = rows_bt[own_b], segments_bt[own_b], path_bl[own_b]
            own = int(predicted(segments_bt).sum())
        to = self.device
        return Batch(rows_bt.to(to), segments_bt.to(to), path_bl.to(to), targets, own)

    def _paths(self, chosen: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        path_bl = self.rows.path_nl[chosen].astype(np.int64)
        mix = self.config.memory.generic_mix
        if mix:
            draws = np.random.default_rng([self.config.seed, step, MIX_STREAM])
            path_bl[draws.random(len(chosen)) < mix] = generic_path(self.config)
        return path_bl


def epoch_rows(config: RunConfig) -> int | None:
    """Rows of train.epoch_tokens; None: all that there are."""
    tokens = config.train.epoch_tokens
    return tokens // config.data.seq_len if tokens else None


def distinct_tokens(config: RunConfig, dataset: Dataset) -> int:
    """Predicted tokens of the text that training goes over until it begins again."""
    limit, rows = epoch_rows(config), dataset.train
    if limit is None or limit >= len(rows.tokens_nt):
        return dataset.train_tokens
    epoch = limit - limit % config.train.batch_size
    chosen = batch_rows(len(rows.tokens_nt), epoch, 0, config.seed, limit)
    return int(predicted(torch.from_numpy(rows.segments_nt[chosen])).sum())


def batch_rows(
    n: int, size: int, step: int, seed: int, limit: int | None = None
) -> NDArray[np.int64]:
    """Rows of one step; an epoch is a permutation by (seed, epoch) less its incomplete batch.

    With a `limit` below n every epoch has the rows of the first one's start, in an order of its
    own. Raises InputError where the text does not fill one batch.
    """
    batches = min(n, limit or n) // size
    if not batches:
        raise InputError(
            f"the train split packs into {n} rows, train.batch_size is {size}; "
            "give more text or a smaller batch"
        )
    epoch, batch = divmod(step, batches)
    if limit is None or limit >= n:
        order = np.random.default_rng([seed, epoch]).permutation(n)
    else:
        order = np.random.default_rng([seed, 0]).permutation(n)[: batches * size]
        if epoch:
            order = order[np.random.default_rng([seed, epoch]).permutation(len(order))]
    return order[batch * size : (batch + 1) * size]
