"""FFN-memory against explicit concatenation, document by document."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from core.config import RunConfig
from core.memory.bank import Bank
from core.memory.ffn import FFNMemory
from core.model import Model

D, LAYERS = 6, (0, 2)


def random_bank() -> Bank:
    """Two levels, nothing at zero."""
    bank = Bank(FFNMemory(LAYERS, D), (2, 4), (3, 2), seed=0)
    generator = torch.Generator().manual_seed(1)
    for table in bank.tables.values():
        table.rows = torch.randn(table.rows.shape, generator=generator, dtype=torch.float64)
    return bank


def test_equals_a_wider_ffn() -> None:
    """[W1;M1], [W2;M2], [W3, M3] of every level in one FFN, for each document on its own."""
    bank = random_bank()
    generator = torch.Generator().manual_seed(2)
    x_btd = torch.randn(3, 5, D, generator=generator, dtype=torch.float64)
    w1, w2, w3 = (torch.randn(7, D, generator=generator, dtype=torch.float64) for _ in range(3))
    path_bl = torch.tensor([[0, 1], [1, 3], [0, 0]])
    attached = bank.attach(bank.fetch(path_bl), 3, torch.float64)
    assert attached[1] is None
    for site, layer in enumerate(LAYERS):
        memory = attached[layer]
        assert memory is not None
        added_btd = memory.ffn(x_btd)
        for b in range(3):
            blocks = [
                bank.tables[level].rows[path_bl[b, level]].view(2, 3, -1, D)[site]
                for level in (0, 1)
            ]
            gate = torch.cat([w1] + [block[0] for block in blocks])
            up = torch.cat([w2] + [block[1] for block in blocks])
            down = torch.cat([w3] + [block[2] for block in blocks])
            wide = (F.silu(x_btd[b] @ gate.T) * (x_btd[b] @ up.T)) @ down
            base = (F.silu(x_btd[b] @ w1.T) * (x_btd[b] @ w2.T)) @ w3
            torch.testing.assert_close(base + added_btd[b], wide, rtol=1e-12, atol=1e-12)


def test_a_mixed_batch_gives_each_document_its_own() -> None:
    bank = random_bank()
    x_btd = torch.randn(4, 5, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    path_bl = torch.tensor([[0, 1], [1, 3], [0, 1], [1, 2]])
    together = bank.attach(bank.fetch(path_bl), 3, torch.float64)[2]
    assert together is not None
    for b in range(4):
        alone = bank.attach(bank.fetch(path_bl[b : b + 1]), 3, torch.float64)[2]
        assert alone is not None
        torch.testing.assert_close(alone.ffn(x_btd[b : b + 1]), together.ffn(x_btd)[b : b + 1])


def test_gradients_by_finite_differences() -> None:
    bank = random_bank()
    x_btd = torch.randn(3, 2, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    path_bl = torch.tensor([[0, 1], [1, 3], [0, 1]])  # documents 0 and 2 share their blocks

    def value(fetches: list) -> torch.Tensor:
        memory = bank.attach(fetches, 3, torch.float64)[2]
        assert memory is not None
        return memory.ffn(x_btd).pow(2).sum()

    fetches = bank.fetch(path_bl)
    value(fetches).backward()
    for fetch in fetches:
        grad = fetch.rows.grad
        assert grad is not None
        assert grad.abs().sum() > 0
        for index in range(0, fetch.rows.numel(), 7):
            slopes = []
            for step in (1e-6, -1e-6):
                moved = bank.fetch(path_bl)
                level = fetches.index(fetch)
                moved[level].rows.data.view(-1)[index] += step
                slopes.append(value(moved).item())
            assert abs((slopes[0] - slopes[1]) / 2e-6 - grad.view(-1)[index].item()) < 1e-4


@pytest.mark.parametrize("memory", ["generic", "ffn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_op_at_the_start_to_the_bit(
    make_config: Callable[..., RunConfig], memory: str, precision: str
) -> None:
    bare = Model(make_config(), "cpu", precision)
    full = Model(make_config(memory={"type": memory, "widths": [3, 2]}), "cpu", precision)
    tokens = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros(3, 16, dtype=torch.uint8)
    fetches = full.fetch(torch.tensor([[0, 1], [1, 3], [0, 0]]))
    assert fetches
    assert torch.equal(bare.hidden(tokens, segments, []), full.hidden(tokens, segments, fetches))


def test_gates_start_random_and_down_at_zero() -> None:
    bank = Bank(FFNMemory(LAYERS, D), (2, 4), (3, 0), seed=0)
    assert list(bank.tables) == [0]
    parts = bank.tables[0].rows.view(2, 2, 3, 3, D)
    assert parts[:, :, 2].abs().sum() == 0
    assert 0.2 < parts[:, :, :2].std().item() / D**-0.5 < 1.5
    assert parts[:, :, :2].abs().max() <= 3 * D**-0.5
