"""FFN-memory against explicit concatenation, document by document."""

import torch
import torch.nn.functional as F

from core.memory.bank import Bank
from core.memory.ffn import AttachedFFN, FFNMemory
from tests.core.memory.blocks import ANCHOR, LAYERS, PATHS, D, random_bank


def test_equals_a_wider_ffn() -> None:
    """[W1;M1], [W2;M2], [W3, M3] of every level in one FFN, for each document on its own."""
    bank = random_bank("ffn")
    generator = torch.Generator().manual_seed(2)
    x_btd = torch.randn(len(PATHS), 5, D, generator=generator, dtype=torch.float64)
    w1, w2, w3 = (torch.randn(7, D, generator=generator, dtype=torch.float64) for _ in range(3))
    attached = bank.attach(bank.fetch(PATHS), 3, torch.float64)
    for site, layer in enumerate(LAYERS):
        memory = attached[layer]
        assert isinstance(memory, AttachedFFN)
        added_btd = memory.added(x_btd)
        for b, path in enumerate(PATHS.tolist()):
            blocks = [
                bank.tables[level].rows[path[level]].view(2, 3, -1, D)[site] for level in (0, 1)
            ]
            gate = torch.cat([w1] + [block[0] for block in blocks])
            up = torch.cat([w2] + [block[1] for block in blocks])
            down = torch.cat([w3] + [block[2] for block in blocks])
            wide = (F.silu(x_btd[b] @ gate.T) * (x_btd[b] @ up.T)) @ down
            base = (F.silu(x_btd[b] @ w1.T) * (x_btd[b] @ w2.T)) @ w3
            torch.testing.assert_close(base + added_btd[b], wide, rtol=1e-12, atol=1e-12)


def test_gates_start_random_and_down_at_zero() -> None:
    bank = Bank(FFNMemory(LAYERS, ANCHOR), (2, 4), (3, 0), seed=0)
    assert list(bank.tables) == [0]
    parts = bank.tables[0].rows.view(2, 2, 3, 3, D)
    assert parts[:, :, 2].abs().sum() == 0
    assert 0.2 < parts[:, :, :2].std().item() / D**-0.5 < 1.5
    assert parts[:, :, :2].abs().max() <= 3 * D**-0.5
