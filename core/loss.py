"""Cross-entropy that keeps no scores: its gradient is made in the forward pass."""

from typing import Any

import torch
from torch import Tensor

# Rows at once, whose scores one buffer holds: what a CPU keeps in its cache, what fills a GPU.
CHUNK, GPU_CHUNK = 512, 8192


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_nd: Tensor, head_vd: Tensor, target_n: Tensor) -> Tensor:
        weight_vd = head_vd.to(hidden_nd.dtype)
        grad_hidden_nd = torch.empty_like(hidden_nd)
        grad_head_vd = torch.zeros_like(head_vd)
        total = hidden_nd.new_zeros((), dtype=torch.float32)
        chunk = CHUNK if hidden_nd.device.type == "cpu" else GPU_CHUNK
        scores_nv = hidden_nd.new_empty(min(chunk, len(hidden_nd)), len(head_vd))
        for start in range(0, len(hidden_nd), chunk):
            rows = slice(start, start + chunk)
            p_nv = scores_nv[: len(hidden_nd[rows])]
            torch.mm(hidden_nd[rows], weight_vd.t(), out=p_nv)
            torch.softmax(p_nv, -1, out=p_nv)
            at_target = torch.arange(len(p_nv), device=p_nv.device), target_n[rows]
            p_target_n = p_nv[at_target]
            total -= p_target_n.float().log().sum()
            p_nv[at_target] = p_target_n - 1  # scatter_ would copy all scores twice
            torch.mm(p_nv, weight_vd, out=grad_hidden_nd[rows])
            grad_head_vd += p_nv.t() @ hidden_nd[rows]
        ctx.save_for_backward(grad_hidden_nd, grad_head_vd)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden_nd, grad_head_vd = ctx.saved_tensors
        scale = grad[0]
        return grad_hidden_nd * scale.to(grad_hidden_nd.dtype), grad_head_vd * scale, None


def summed_cross_entropy(hidden_nd: Tensor, head_vd: Tensor, target_n: Tensor) -> Tensor:
    """Sum over n of -log softmax(hidden_nd @ head_vd^T)[target_n], in nats, fp32 scalar.

    In the precision of `hidden_nd`: a token's loss in bf16 is good to three digits, its gradient as
    good as bf16 scores make it. Gradients flow to both arguments.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(hidden_nd, head_vd, target_n)  # type: ignore[no-untyped-call]
    return total
