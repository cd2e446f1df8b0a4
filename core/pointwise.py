"""RMSNorm and SwiGLU's gate: on a CPU in bf16 by compiled loops, elsewhere by torch."""

from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from core import kernels

EPSILON = 1e-6  # of RMSNorm


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis. Source: arXiv 1910.07467."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        if not _compiled(x):
            return F.rms_norm(x, x.shape[-1:], self.gain.to(x.dtype), EPSILON)
        y: Tensor = _Normalised.apply(x.contiguous(), self.gain)  # type: ignore[no-untyped-call]
        return y


def swiglu(gate_up: Tensor) -> Tensor:
    """SiLU(gate) * up, of gate and up side by side in the last axis. Source: arXiv 2002.05202."""
    if not _compiled(gate_up):
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    y: Tensor = _Gated.apply(gate_up.contiguous())  # type: ignore[no-untyped-call]
    return y


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        y, inverse_n = torch.empty_like(x), gain.new_empty(x.shape[:-1].numel())
        kernels.normalise(_bits(x), _array(gain), _bits(y), _array(inverse_n), EPSILON)
        ctx.save_for_backward(x, inverse_n, gain)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, inverse_n, gain = ctx.saved_tensors
        grad, dx, dgain = grads[0].contiguous(), torch.empty_like(x), torch.zeros_like(gain)
        arrays = _bits(grad), _bits(x), _array(inverse_n), _array(gain), _bits(dx), _array(dgain)
        kernels.normalise_backward(*arrays)
        return dx, dgain


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        y = gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)
        kernels.gated(_bits(gate_up), _bits(y))
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        d_gate_up = torch.empty_like(gate_up)
        kernels.gated_backward(_bits(grads[0].contiguous()), _bits(gate_up), _bits(d_gate_up))
        return d_gate_up


def _compiled(x: Tensor) -> bool:
    if torch.compiler.is_compiling():  # torch's compiler makes loops of its own
        return False
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


def _bits(x: Tensor) -> NDArray[Any]:
    """The bf16 of a contiguous tensor as uint16 [n, d], without a copy."""
    array: NDArray[Any] = x.detach().view(-1, x.shape[-1]).view(torch.uint16).numpy()
    return array


def _array(x: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = x.detach().numpy()
    return array
