"""AdamW by rows: only fetched rows and their moments move; each row counts its own steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.memory.bank import Fetch

EPSILON = 1e-8


class RowAdamW:
    """AdamW (arXiv 1711.05101) on the fetched rows of a bank, gradients clipped row by row.

    Clipping by row keeps a row's update independent of which other rows share its batch.
    """

    def __init__(self, beta1: float, beta2: float, weight_decay: float, clip: float) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.weight_decay, self.clip = weight_decay, clip

    @torch.no_grad()
    def step(self, fetches: Sequence[Fetch], lr: float) -> None:
        """Update the fetched rows from their gradients and write them back to their tables."""
        for fetch in fetches:
            if fetch.rows.grad is None:
                continue
            self._update(fetch, fetch.rows.grad, lr)

    def _update(self, fetch: Fetch, gradient: Tensor, lr: float) -> None:
        table, ids = fetch.table, fetch.ids
        norm_u1 = gradient.norm(dim=1, keepdim=True)
        gradient.mul_((self.clip / (norm_u1 + EPSILON)).clamp_(max=1.0))
        steps_u1 = table.steps.index_select(0, ids).add_(1)[:, None]
        first = table.first.index_select(0, ids).lerp_(gradient, 1 - self.beta1)
        second = table.second.index_select(0, ids).mul_(self.beta2)
        second.addcmul_(gradient, gradient, value=1 - self.beta2)
        scale_u1 = lr / (1 - self.beta1**steps_u1)
        root = second.sqrt().div_((1 - self.beta2**steps_u1).sqrt()).add_(EPSILON)
        rows = fetch.rows.detach().mul_(1 - lr * self.weight_decay).sub_(scale_u1 * first / root)
        table.rows.index_copy_(0, ids, rows)
        table.first.index_copy_(0, ids, first)
        table.second.index_copy_(0, ids, second)
        table.steps.index_copy_(0, ids, steps_u1[:, 0])
