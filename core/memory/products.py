"""Products of documents, each with a matrix of its own."""

from typing import Any

import torch
from torch import Tensor


def linear(x: Tensor, w: Tensor) -> Tensor:
    """x W^T [b, ..., t, o] of x [b, ..., t, d] and W [b, ..., o, d]; b of W is 1 where one serves
    all documents.

    Batches of bf16 products on CPUs copy what does not lie in one piece, forwards and backwards;
    others take it as it lies.
    """
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or len(w) == 1:
        return x @ w.transpose(-1, -2)
    y: Tensor = _Linear.apply(x, w.contiguous())  # type: ignore[no-untyped-call]
    return y


class _Linear(torch.autograd.Function):
    """Its gradient of W lies as W does; that of a transposed W would have to be copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.transpose(-1, -2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grads[0] @ w, grads[0].transpose(-1, -2) @ x
