"""Rows that are fetched move by AdamW; the others do not move at all."""

import copy

import pytest
import torch

from core.config import AnchorConfig
from core.memory.bank import Bank
from core.memory.ffn import FFNMemory
from core.memory.optimizer import RowAdamW

ANCHOR = AnchorConfig(layers=1, d_model=4, heads=1, head_dim=2, ffn=3)


def make_bank() -> Bank:
    return Bank(FFNMemory((0,), ANCHOR), (3, 9), (2, 1), seed=0)


def step(
    bank: Bank, optimizer: RowAdamW, path_bl: torch.Tensor, seed: int, lr: float = 0.1
) -> None:
    """One step on made-up gradients that depend on the row's number and the seed alone."""
    fetches = bank.fetch(path_bl)
    for fetch in fetches:
        fetch.rows.grad = torch.stack(
            [gradient(int(i), fetch.rows.shape[1], seed) for i in fetch.ids]
        )
    optimizer.step(fetches, lr)


def gradient(row: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1000 * seed + row))


def test_rows_not_fetched_do_not_change_by_a_bit() -> None:
    bank = make_bank()
    optimizer = RowAdamW(0.9, 0.95, weight_decay=0.1, clip=1.0)
    step(bank, optimizer, torch.tensor([[0, 0], [1, 4], [2, 8]]), seed=1)
    before = copy.deepcopy(bank.state())
    step(bank, optimizer, torch.tensor([[1, 4], [1, 5]]), seed=2)
    moved = {"0": {1}, "1": {4, 5}}
    for name, tensor in bank.state().items():
        rows = moved[name.split(".")[0]]
        for row in range(len(tensor)):
            same = torch.equal(tensor[row], before[name][row])
            assert same == (row not in rows), (name, row)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_fetched_rows_move_as_torch_adamw(weight_decay: float) -> None:
    """Each row, at the steps that fetched it, as its own parameter under torch's AdamW."""
    bank = make_bank()
    optimizer = RowAdamW(0.9, 0.95, weight_decay, clip=1e9)
    paths = [[[0, 0], [0, 1]], [[1, 4]], [[0, 1], [2, 7]], [[0, 1]]]
    expected = {}
    for row in range(9):
        parameter = torch.nn.Parameter(bank.tables[1].rows[row].clone())
        reference = torch.optim.AdamW(
            [parameter], lr=0.1, betas=(0.9, 0.95), weight_decay=weight_decay
        )
        for seed, path in enumerate(paths):
            if row in [leaf for _, leaf in path]:
                parameter.grad = gradient(row, len(parameter), seed)
                reference.step()
        expected[row] = parameter.detach()
    for seed, path in enumerate(paths):
        step(bank, optimizer, torch.tensor(path), seed)
    for row, value in expected.items():
        torch.testing.assert_close(bank.tables[1].rows[row], value, rtol=1e-5, atol=1e-6)


def test_clipping_is_by_row() -> None:
    """A large gradient in one row leaves another row's update as it was alone."""
    alone, together = make_bank(), make_bank()
    optimizer = RowAdamW(0.9, 0.95, 0.0, clip=1.0)
    fetches = alone.fetch(torch.tensor([[0, 3]]))
    for fetch in fetches:
        fetch.rows.grad = torch.full_like(fetch.rows, 0.01)
    optimizer.step(fetches, 0.1)
    fetches = together.fetch(torch.tensor([[0, 3], [2, 7]]))
    for fetch in fetches:
        fetch.rows.grad = torch.full_like(fetch.rows, 0.01)
        fetch.rows.grad[1] = 1e6
    optimizer.step(fetches, 0.1)
    assert torch.equal(alone.tables[1].rows[3], together.tables[1].rows[3])
    assert together.tables[1].first[7].norm() <= 0.1001  # (1 - beta1) x clip


def test_fetch_takes_distinct_rows_once() -> None:
    bank = make_bank()
    upper, lower = bank.fetch(torch.tensor([[1, 4], [0, 2], [1, 5], [1, 4]]))
    assert upper.ids.tolist() == [0, 1]
    assert lower.ids.tolist() == [2, 4, 5]
    assert lower.ids[lower.index].tolist() == [4, 2, 5, 4]
    assert torch.equal(lower.rows[1], bank.tables[1].rows[4])


def test_same_seed_same_bank() -> None:
    one, two = make_bank(), make_bank()
    assert all(torch.equal(a, two.state()[name]) for name, a in one.state().items())


def test_a_block_begins_alike_in_banks_of_all_sizes() -> None:
    small = Bank(FFNMemory((0,), ANCHOR), (3, 9), (2, 1), seed=0)
    large = Bank(FFNMemory((0,), ANCHOR), (5, 50), (2, 1), seed=0)
    for level, table in small.tables.items():
        assert torch.equal(table.rows, large.tables[level].rows[: len(table.rows)])
        assert len(table.rows.unique(dim=0)) == len(table.rows)


def test_seeds_and_levels_begin_apart() -> None:
    one = Bank(FFNMemory((0,), ANCHOR), (3, 3), (2, 2), seed=0)
    other = Bank(FFNMemory((0,), ANCHOR), (3, 3), (2, 2), seed=1)
    assert not torch.equal(one.tables[0].rows, one.tables[1].rows)
    assert not torch.equal(one.tables[0].rows, other.tables[0].rows)
