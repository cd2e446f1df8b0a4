"""Heads by compiled loops: what torch's operations make of them, values and gradients."""

from collections.abc import Callable
from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.config import AnchorConfig
from core.heads import Rotation, rotary, split_heads, split_heads_by_passes
from core.pointwise import EPSILON, RMSNorm

Split = Callable[[Tensor, RMSNorm, RMSNorm, Rotation, int], tuple[Tensor, ...]]
BF16 = 2**-8  # half a unit in the last place, relative


class Given:
    """Queries, keys and values side by side, gains, and gradients of all four that come out."""

    def __init__(self, b: int, t: int, h: int, k: int, past: int) -> None:
        draw = torch.Generator().manual_seed(b + 10 * t + 100 * h + 1000 * k)
        shape = b, h, t, k
        self.qkv = torch.randn(b, t, 3 * h * k, generator=draw).bfloat16().requires_grad_()
        self.norms = RMSNorm(h * k), RMSNorm(h * k)
        for norm in self.norms:
            torch.nn.init.uniform_(norm.gain, 0.5, 2, generator=draw)
        self.grads = [torch.randn(shape, generator=draw).bfloat16() for _ in range(4)]
        config = AnchorConfig(layers=1, d_model=8, heads=h, head_dim=k, ffn=8)
        where = torch.bfloat16, torch.device("cpu")
        self.rotation, self.head_dim = rotary(t + past, config, *where, past), k

    def doubled(self) -> "Given":
        """The same in float64."""
        self.qkv = self.qkv.detach().double().requires_grad_()
        self.norms = tuple(norm.double() for norm in self.norms)
        self.grads = [grad.double() for grad in self.grads]
        return self

    def results(self, split: Split, taken: slice) -> tuple[Tensor, ...]:
        """All four, then what the gradients of those `taken` are of the input and the gains."""
        found = split(self.qkv, *self.norms, self.rotation, self.head_dim)
        inputs = self.qkv, *(norm.gain for norm in self.norms)
        return *found, *torch.autograd.grad(found[taken], inputs, self.grads[taken])


SIZES = st.tuples(
    st.integers(0, 2), st.integers(1, 5), st.integers(1, 3), st.sampled_from((2, 6, 32))
)
EVERYTHING, ATTENTIONS = slice(0, 4), slice(1, 4)  # the first are for memories


@given(SIZES, st.integers(0, 3), st.sampled_from((EVERYTHING, ATTENTIONS)))
def test_loops_round_where_torchs_operations_do(
    size: tuple[int, int, int, int], past: int, taken: slice
) -> None:
    """Only sums over a row, in another order, may move a number to the next that bf16 has."""
    case = Given(*size, past)
    found, expected = (case.results(split, taken) for split in (split_heads, split_heads_by_passes))
    assert [x.dtype for x in found] == [torch.bfloat16] * 5 + [torch.float32] * 2
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), two.double(), rtol=2 * BF16, atol=1e-4)


def turned(x_bthk: Tensor, past: int) -> Tensor:
    """RoPE of pairs (i, i + half) as complex numbers."""
    half = x_bthk.shape[-1] // 2
    position_t = torch.arange(past, past + x_bthk.shape[1], dtype=torch.float64)
    angle_ti = torch.outer(position_t, 100_000.0 ** (-torch.arange(half).double() / half))
    pair = torch.complex(x_bthk[..., :half], x_bthk[..., half:])
    pair = pair * torch.polar(torch.ones_like(angle_ti), angle_ti)[:, None]
    return torch.cat((pair.real, pair.imag), dim=-1)


def exact(
    qkv: Tensor, q_norm: RMSNorm, k_norm: RMSNorm, rotation: Rotation, head_dim: int, past: int
) -> tuple[Tensor, ...]:
    """The formulas in float64."""
    rows = []
    for x, norm in zip(qkv.chunk(3, dim=-1), (q_norm, k_norm, None), strict=True):
        y = x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * norm.gain if norm else x
        rows.append(y.unflatten(-1, (-1, head_dim)))
    q, k, v = rows
    found = q, turned(q, past) * head_dim**-0.5, turned(k, past), v
    return tuple(x.transpose(1, 2) for x in found)


@given(SIZES, st.integers(0, 3), st.sampled_from((EVERYTHING, ATTENTIONS)))
def test_are_the_formulas(size: tuple[int, int, int, int], past: int, taken: slice) -> None:
    case = Given(*size, past)
    found = case.results(split_heads, taken)
    expected = case.doubled().results(partial(exact, past=past), taken)
    for one, two in zip(found, expected, strict=True):  # angles are rounded too
        torch.testing.assert_close(one.double(), two, rtol=8 * BF16, atol=8 * BF16)
