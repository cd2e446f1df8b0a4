"""AdamW by rows: only fetched rows and their moments move; each row counts its own steps."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from core.kernels import adamw_rows
from core.memory.bank import RowGradient
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
    def step(self, gradients: Sequence[RowGradient], lr: float) -> None:
        """Update rows in their tables from their gradients."""
        for gradient in gradients:
            values_ud = gradient.values.to(gradient.ids.device)
            change = self._compiled if values_ud.device.type == "cpu" else self._by_passes
            gradient.update(partial(change, values_ud, lr))

    def _compiled(self, gradient_ud: Tensor, lr: float, rows: Rows, at_u: Tensor) -> None:
        adamw_rows(
            at_u.numpy(),
            gradient_ud.numpy(),
            rows.weights.numpy(),
            rows.first.numpy(),
            rows.second.numpy(),
            rows.steps.numpy(),
            (lr, self.beta1, self.beta2, self.weight_decay, self.clip, EPSILON),
        )

    def _by_passes(self, gradient_ud: Tensor, lr: float, rows: Rows, at_u: Tensor) -> None:
        norm_u1 = gradient_ud.norm(dim=1, keepdim=True)
        clipped_ud = gradient_ud * (self.clip / (norm_u1 + EPSILON)).clamp_(max=1.0)
        weights_ud, first_ud, second_ud, steps_u = (part[at_u] for part in rows.tensors)
        steps_u1 = steps_u.add_(1)[:, None]
        first_ud.lerp_(clipped_ud, 1 - self.beta1)
        second_ud.mul_(self.beta2).addcmul_(clipped_ud, clipped_ud, value=1 - self.beta2)
        scale_u1 = lr / (1 - self.beta1**steps_u1)
        root_ud = second_ud.sqrt().div_((1 - self.beta2**steps_u1).sqrt()).add_(EPSILON)
        weights_ud.mul_(1 - lr * self.weight_decay).sub_(scale_u1 * first_ud / root_ud)
        new = weights_ud, first_ud, second_ud, steps_u
        for part, values in zip(rows.tensors, new, strict=True):
            part.index_copy_(0, at_u, values)
