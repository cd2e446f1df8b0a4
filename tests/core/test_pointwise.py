"""Compiled loops against the formulas in float64, values and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.memory.optimizer import RowAdamW
from core.memory.row_format import Rows
from core.pointwise import EPSILON, RMSNorm, swiglu

BF16 = 2**-8  # half a unit in the last place, relative


shapes = st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 40))


def rounded(*shape: int, seed: int) -> Tensor:
    """Values that bf16 holds, some of them far from 0."""
    draw = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(shape, generator=draw)).bfloat16()


def close(got: Tensor, expected: Tensor, slack: float = 1.0) -> None:
    torch.testing.assert_close(got.double(), expected, rtol=slack * BF16, atol=1e-6)


@given(shapes, st.booleans())
def test_rms_norm(shape: tuple[int, ...], strided: bool) -> None:
    whole = rounded(*shape[:-1], 2 * shape[-1], seed=0)
    x = (whole[..., : shape[-1]] if strided else rounded(*shape, seed=0)).requires_grad_()
    norm = RMSNorm(shape[-1])
    with torch.no_grad():
        norm.gain.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    y, grad = norm(x), rounded(*shape, seed=2)
    assert y.dtype == torch.bfloat16
    exact, gain = x.detach().double().requires_grad_(), norm.gain.detach().double().requires_grad_()
    expected = exact * (exact.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * gain
    close(y, expected.detach())
    got_dx, got_dgain = torch.autograd.grad(y, (x, norm.gain), grad)
    dx, dgain = torch.autograd.grad(expected, (exact, gain), grad.double())
    torch.testing.assert_close(got_dx.double(), dx, rtol=BF16, atol=1e-4)
    torch.testing.assert_close(got_dgain.double(), dgain, rtol=1e-4, atol=1e-4)


@given(shapes)
def test_swiglu(shape: tuple[int, ...]) -> None:
    gate_up = rounded(*shape[:-1], 2 * shape[-1], seed=0).requires_grad_()
    y, grad = swiglu(gate_up), rounded(*shape, seed=1)
    exact = gate_up.detach().double().requires_grad_()
    gate, up = exact.chunk(2, dim=-1)
    expected = gate * gate.sigmoid() * up
    close(y, expected.detach())
    close(
        torch.autograd.grad(y, gate_up, grad)[0],
        torch.autograd.grad(expected, exact, grad.double())[0],
        slack=1.5,
    )


@pytest.mark.parametrize("value", [-300.0, -90.0, 0.0, 90.0, 300.0])
def test_swiglu_at_the_ends(value: float) -> None:
    gate_up = torch.tensor([[value, 1.0]], dtype=torch.bfloat16)
    expected = value if value > 0 else 0.0
    assert swiglu(gate_up).item() == pytest.approx(expected, abs=1e-6)


def test_what_is_not_finite_stays_so() -> None:
    gate_up = torch.tensor([[torch.nan, 1.0], [1.0, torch.inf]], dtype=torch.bfloat16)
    assert not swiglu(gate_up).isfinite().any()
    norm = RMSNorm(2)
    assert norm(torch.tensor([[torch.nan, 1.0]], dtype=torch.bfloat16)).isnan().all()


def test_other_precisions_are_torchs_own() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    gate, up = x.chunk(2, dim=-1)
    assert torch.equal(swiglu(x), torch.nn.functional.silu(gate) * up)
    assert torch.equal(RMSNorm(8)(x), torch.nn.functional.rms_norm(x, (8,), eps=EPSILON))


@given(st.sets(st.integers(0, 5)), st.integers(1, 40), st.booleans())
def test_compiled_rows_are_rows_by_passes(at: set[int], size: int, decays: bool) -> None:
    """The compiled update is the one that GPUs make of torch's operations; other rows stay."""
    draw = torch.Generator().manual_seed(size)
    optimizer = RowAdamW(0.9, 0.95, 0.1 * decays, 1.0)
    weights, first = torch.randn(2, 6, size, generator=draw)
    second, steps = torch.rand(6, size, generator=draw), torch.tensor([0, 1, 5, 1000, 2, 0])
    at_u, scale_u = torch.tensor(sorted(at), dtype=torch.int64), torch.logspace(-2, 2, len(at))
    gradient_ud = torch.randn(len(at), size, generator=draw) * scale_u[:, None]
    updated = []
    for change in (optimizer._compiled, optimizer._by_passes):
        updated.append(Rows(*(x.clone() for x in (weights, first, second, steps))))
        change(gradient_ud, 1e-2, updated[-1], at_u)
    for one, two in zip(*(rows.tensors for rows in updated), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    moved = (updated[0].weights != weights).any(dim=1).nonzero()[:, 0]
    assert moved.tolist() == at_u.tolist() == (updated[0].steps - steps).nonzero()[:, 0].tolist()
