"""AdamW by rows: only fetched rows and their moments move; each row counts its own steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.kernels import adamw_rows
from core.memory.bank import Fetch
from core.memory.row_format import Rows

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
        update = self._in_place if gradient.device.type == "cpu" else self._by_passes
        fetch.put(update(fetch.kept, gradient, lr))

    def _in_place(self, kept: Rows, gradient: Tensor, lr: float) -> Rows:
        adamw_rows(
            kept.weights.detach().numpy(),
            gradient.numpy(),
            kept.first.numpy(),
            kept.second.numpy(),
            kept.steps.numpy(),
            (lr, self.beta1, self.beta2, self.weight_decay, self.clip, EPSILON),
        )
        return Rows(kept.weights.detach(), kept.first, kept.second, kept.steps)

    def _by_passes(self, kept: Rows, gradient: Tensor, lr: float) -> Rows:
        norm_u1 = gradient.norm(dim=1, keepdim=True)
        gradient.mul_((self.clip / (norm_u1 + EPSILON)).clamp_(max=1.0))
        steps_u1 = kept.steps.add(1)[:, None]
        first = kept.first.lerp_(gradient, 1 - self.beta1)
        second = kept.second.mul_(self.beta2)
        second.addcmul_(gradient, gradient, value=1 - self.beta2)
        scale_u1 = lr / (1 - self.beta1**steps_u1)
        root = second.sqrt().div_((1 - self.beta2**steps_u1).sqrt()).add_(EPSILON)
        weights = kept.weights.detach().mul_(1 - lr * self.weight_decay)
        return Rows(weights.sub_(scale_u1 * first / root), first, second, steps_u1[:, 0])
