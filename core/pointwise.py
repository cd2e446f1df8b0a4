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
        if not by_loops(x.device, x.dtype):
            return F.rms_norm(x, x.shape[-1:], self.gain.to(x.dtype), EPSILON)
        y: Tensor = _Normalised.apply(x.contiguous(), self.gain)  # type: ignore[no-untyped-call]
        return y


def swiglu(gate_up: Tensor) -> Tensor:
    """SiLU(gate) * up, of gate and up side by side in the last axis. Source: arXiv 2002.05202."""
    if not by_loops(gate_up.device, gate_up.dtype):
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    y: Tensor = _Gated.apply(gate_up.contiguous())  # type: ignore[no-untyped-call]
    return y


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        y, inverse_n = torch.empty_like(x), gain.new_empty(x.shape[:-1].numel())
        kernels.normalise(_rows(x), array(gain), _rows(y), array(inverse_n), EPSILON)
        ctx.save_for_backward(x, inverse_n, gain)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, inverse_n, gain = ctx.saved_tensors
        grad, dx, dgain = grads[0].contiguous(), torch.empty_like(x), torch.zeros_like(gain)
        arrays = _rows(grad), _rows(x), array(inverse_n), array(gain), _rows(dx), array(dgain)
        kernels.normalise_backward(*arrays)
        return dx, dgain


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        y = gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)
        kernels.gated(_rows(gate_up), _rows(y))
        ctx.save_for_backward(gate_up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        d_gate_up = torch.empty_like(gate_up)
        kernels.gated_backward(_rows(grads[0].contiguous()), _rows(gate_up), _rows(d_gate_up))
        return d_gate_up


def by_loops(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether compiled loops take what lies there in that precision, not torch."""
    if torch.compiler.is_compiling():  # torch's compiler makes loops of its own
        return False
    return device.type == "cpu" and dtype == torch.bfloat16


def bits(x: Tensor) -> NDArray[Any]:
    """The bf16 of a tensor as uint16, without a copy."""
    own: NDArray[Any] = x.detach().view(torch.uint16).numpy()
    return own


def array(x: Tensor) -> NDArray[Any]:
    """The tensor without a copy."""
    own: NDArray[Any] = x.detach().numpy()
    return own


def _rows(x: Tensor) -> NDArray[Any]:
    """The bf16 of a contiguous tensor as uint16 [n, d]."""
    return bits(x.view(-1, x.shape[-1]))
