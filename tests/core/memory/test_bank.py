"""Rows that are fetched move by AdamW; the others do not move at all."""

import copy
from itertools import product
from typing import Any

import pytest
import torch

from core.config import AnchorConfig
from core.memory.bank import Bank, BankPlace, row_gradients
from core.memory.ffn import FFNMemory
from core.memory.optimizer import EPSILON, RowAdamW
from core.memory.row_format import FP32, RowFormat, random_bits, round_stochastically

ANCHOR = AnchorConfig(layers=1, d_model=4, heads=1, head_dim=2, ffn=3)
DTYPES = torch.float32, torch.bfloat16
FORMATS = [RowFormat(weights, moments) for weights, moments in product(DTYPES, DTYPES)]


def make_bank(row_format: RowFormat = FP32) -> Bank:
    return Bank(FFNMemory((0,), ANCHOR), (3, 9), (2, 1), seed=0, row_format=row_format)


def step(
    bank: Bank, optimizer: RowAdamW, path_bl: torch.Tensor, seed: int, lr: float = 0.1
) -> None:
    """One step on made-up gradients that depend on the row's number and the seed alone."""
    fetches = bank.fetch(path_bl)
    for fetch in fetches:
        fetch.rows.grad = torch.stack(
            [gradient(int(i), fetch.rows.shape[1], seed) for i in fetch.ids]
        )
    optimizer.step(row_gradients(fetches), lr)


def gradient(row: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1000 * seed + row))


@pytest.mark.parametrize("row_format", FORMATS)
def test_rows_not_fetched_do_not_change_by_a_bit(row_format: RowFormat) -> None:
    bank = make_bank(row_format)
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


@pytest.mark.parametrize("row_format", FORMATS)
@pytest.mark.parametrize("clip", [0.5, 1e9])
def test_a_step_is_that_of_the_formula_as_the_format_rounds_it(
    row_format: RowFormat, clip: float
) -> None:
    """Each step from the values before it, in float64; an fp32 sum may end a bf16 away."""
    bank, optimizer = make_bank(row_format), RowAdamW(0.9, 0.95, 0.1, clip)
    table = bank.resident()[1]
    for seed, leaves in enumerate([[1, 4], [4], [4, 7, 8], [1, 7]]):
        expected = {leaf: formula(bank, leaf, seed, clip) for leaf in leaves}
        step(bank, optimizer, torch.tensor([[0, leaf] for leaf in leaves]), seed)
        for leaf, parts in expected.items():
            found = [part[leaf] for part in list(table.state().values())[:3]]
            for part, exact in zip(found, parts, strict=True):
                assert part.dtype == exact.dtype
                torch.testing.assert_close(part, exact)
                assert part.dtype == torch.float32 or (part == exact).double().mean() > 0.9
    assert table.steps.tolist() == [0, 2, 0, 0, 3, 0, 0, 2, 1]


def formula(bank: Bank, leaf: int, seed: int, clip: float) -> list[torch.Tensor]:
    """Weights and moments of a row of level 1 after a step at rate 0.1, betas 0.9 and 0.95, decay
    0.1, as they are kept."""
    table = bank.resident()[1]
    w, m, v = (part[leaf].double() for part in (table.rows, table.first, table.second))
    t = int(table.steps[leaf]) + 1
    g = gradient(leaf, len(w), seed).double()
    g *= min(1.0, clip / (g.norm().item() + EPSILON))
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
    root = (v / (1 - 0.95**t)).sqrt() + EPSILON
    w = w - 0.1 * 0.1 * w - 0.1 * m / (1 - 0.9**t) / root
    kept = {"weights": w.float(), "first": m.float(), "second": v.float()}
    narrow = [name for name, dtype in table.format.parts.items() if dtype == torch.bfloat16]
    bits = random_bits((0, 1, leaf, t), len(narrow) * len(w)).split(len(w))
    rounded = {n: round_stochastically(kept[n], b) for n, b in zip(narrow, bits, strict=False)}
    return list((kept | rounded).values())


def test_clipping_is_by_row() -> None:
    """A large gradient in one row leaves another row's update as it was alone."""
    alone, together = make_bank(), make_bank()
    optimizer = RowAdamW(0.9, 0.95, 0.0, clip=1.0)
    fetches = alone.fetch(torch.tensor([[0, 3]]))
    for fetch in fetches:
        fetch.rows.grad = torch.full_like(fetch.rows, 0.01)
    optimizer.step(row_gradients(fetches), 0.1)
    fetches = together.fetch(torch.tensor([[0, 3], [2, 7]]))
    for fetch in fetches:
        fetch.rows.grad = torch.full_like(fetch.rows, 0.01)
        fetch.rows.grad[1] = 1e6
    optimizer.step(row_gradients(fetches), 0.1)
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


def test_what_a_gpu_takes_from_host_memory_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real = torch.empty

    def empty(*size: int, pin_memory: bool = False, **kind: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return real(*size, **kind)

    for pinned in (False, True):
        memory = FFNMemory((0,), ANCHOR)
        bank = Bank(memory, (3, 9), (2, 1), 0, BankPlace(pinned=pinned))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", empty)
            bank.fetch(torch.tensor([[0, 1], [2, 8]]))
    assert asked == [False, False, True, True]
