"""The chunked cross-entropy is torch's cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from core import loss


@pytest.mark.parametrize("n", [1, 5, 6, 17])
def test_value_and_gradients(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", 6)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 11, (n,), generator=generator)
    ours = loss.summed_cross_entropy(hidden, head, target)
    ours_grads = torch.autograd.grad(ours * 0.5, (hidden, head))
    reference = F.cross_entropy(hidden @ head.T, target, reduction="sum")
    reference_grads = torch.autograd.grad(reference * 0.5, (hidden, head))
    torch.testing.assert_close(ours, reference.float())
    for a, b in zip(ours_grads, reference_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_bf16_is_close_and_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2000, 16, generator=generator)
    head = torch.randn(100, 16, generator=generator)
    target = torch.randint(0, 100, (2000,), generator=generator)
    exact = loss.summed_cross_entropy(hidden, head, target).item()
    rough = loss.summed_cross_entropy(hidden.bfloat16(), head, target).item()
    assert abs(rough / exact - 1) < 1e-3
