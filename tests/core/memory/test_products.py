"""Products of documents against the formulas in float64, values and gradients."""

import pytest
import torch
from torch import Tensor

from core.memory.products import linear

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2**-8}  # bf16: half a unit in the last place


def rounded(dtype: torch.dtype, *shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("documents", [1, 3])
@pytest.mark.parametrize("heads", [(), (2,)])
def test_each_document_has_its_own(
    dtype: torch.dtype, documents: int, heads: tuple[int, ...]
) -> None:
    """Of matrices that are a part of larger ones, as those of a bank's blocks are."""
    x = rounded(dtype, 3, *heads, 5, 4, seed=0).requires_grad_()
    block = rounded(dtype, documents, *heads, 7, 9, seed=1).requires_grad_()
    grad = rounded(dtype, 3, *heads, 5, 6, seed=2)
    y = linear(x, block[..., 1:, :4])
    exact, whole = (z.detach().double().requires_grad_() for z in (x, block))
    expected = torch.einsum("...td,...od->...to", exact, whole[..., 1:, :4])
    torch.testing.assert_close(y.double(), expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    found = torch.autograd.grad(y, (x, block), grad)
    wanted = torch.autograd.grad(expected, (exact, whole), grad.double())
    for one, two in zip(found, wanted, strict=True):  # where one serves all, sums of rounded ones
        torch.testing.assert_close(one.double(), two, rtol=3 * CLOSE[dtype], atol=9 * CLOSE[dtype])
