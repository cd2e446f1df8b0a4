"""What a bank keeps in bf16 is right in the mean, and the same whenever it is rounded again."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.accounting import bank_bytes_per_parameter, bank_disk_bytes, full_bank_disk_bytes
from core.config import RunConfig
from core.memory import create_bank
from core.memory.bank import BankPlace
from core.memory.row_format import RowFormat, Rows, random_bits, round_stochastically

DRAWS = 4096
NARROW = RowFormat(torch.bfloat16, torch.bfloat16, seed=(1, 2))


def made_up(u: int, size: int = 64) -> Rows:
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(u, size, generator=generator) for _ in range(3))
    return Rows(*parts, torch.arange(1, u + 1))


@settings(max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 2**32))
def test_rounds_to_a_neighbour_and_to_the_value_in_the_mean(value: float, seed: int) -> None:
    """In float64, against the exact chances of both neighbours. 6 standard errors: one failure in
    a billion tries. Above the largest bf16 there is one neighbour alone.
    """
    largest = torch.finfo(torch.bfloat16).max
    if abs(value) > largest:
        value = math.copysign(largest, value)
    x = torch.tensor(value)
    below = (x.view(torch.int32) & -65536).view(torch.float32).double().item()  # towards zero
    pattern = x.view(torch.int32).item() & 0xFFFF
    rounded = round_stochastically(x.expand(DRAWS), random_bits((seed,), DRAWS)).double()
    gap = (value - below) * 2**16 / pattern if pattern else 0.0
    assert set(rounded.tolist()) <= {below, below + gap}
    share = pattern / 2**16
    error = abs(gap) * math.sqrt(share * (1 - share) / DRAWS)
    assert abs(rounded.mean().item() - value) <= 6 * error + 1e-12 * abs(value)


@pytest.mark.parametrize("bits", [0, 1, 2**16 - 1])
def test_what_bf16_holds_stays(bits: int) -> None:
    """All 65,536 patterns: subnormal numbers, both zeros, infinities; nan stays nan."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    rounded = round_stochastically(every.float(), torch.full(every.shape, bits, dtype=torch.int32))
    number = ~every.isnan()
    assert torch.equal(rounded[number].view(torch.int16), every[number].view(torch.int16))
    assert rounded[~number].isnan().all()


def test_a_finite_number_stays_finite() -> None:
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([largest, -largest]).repeat(100)
    assert round_stochastically(x, random_bits((0,), 200)).isfinite().all()


def test_bits_are_even() -> None:
    """The mean and each of the 16 bits, within 5 standard errors; odd lengths too."""
    bits = random_bits((3, 1, 4), 100_001)
    assert len(bits) == 100_001 and bits.min() >= 0 and bits.max() < 2**16
    for place in range(16):
        assert abs((bits >> place & 1).double().mean() - 0.5) < 5 * 0.5 / math.sqrt(100_001)


def test_a_rounding_hangs_on_seed_row_and_step_alone() -> None:
    rows, ids = made_up(6), torch.tensor([0, 3, 4, 7, 8, 9])
    whole = NARROW.round(ids, rows)
    some = torch.tensor([1, 4])
    part = NARROW.round(ids[some], Rows(*(x[some] for x in vars(rows).values())))
    for name, x in vars(part).items():
        assert torch.equal(x, getattr(whole, name)[some])
    later = NARROW.round(ids, Rows(rows.weights, rows.first, rows.second, rows.steps + 1))
    others = NARROW.round(ids + 1, rows)
    reseeded = RowFormat(torch.bfloat16, torch.bfloat16, seed=(1, 3)).round(ids, rows)
    for unlike in (later, others, reseeded):
        assert not torch.equal(unlike.weights, whole.weights)
    one = Rows(rows.weights, rows.weights, rows.weights, rows.steps)
    kept = NARROW.round(ids, one)
    assert not torch.equal(kept.weights, kept.first)  # parts round apart
    assert not torch.equal(kept.first, kept.second)


def test_fp32_keeps_what_it_is_given() -> None:
    rows = made_up(3)
    assert RowFormat().round(torch.arange(3), rows) is rows
    weights_alone = RowFormat(weights=torch.bfloat16).round(torch.arange(3), rows)
    assert weights_alone.weights.dtype == torch.bfloat16
    assert weights_alone.first is rows.first and weights_alone.second is rows.second


def test_updates_below_half_a_unit_arrive() -> None:
    """A thousand of 2^-12 move 1 by a quarter, where bf16's steps are 2^-7 apart."""
    size, updates = 2000, 1000
    row, nearest = torch.ones(size), torch.ones(size, dtype=torch.bfloat16)
    for step in range(updates):
        row = round_stochastically(row + 2**-12, random_bits((0, step), size)).float()
        nearest = (nearest.float() + 2**-12).bfloat16()
    assert (nearest == 1).all()
    moved = row.double() - 1
    spread = moved.std().item() / math.sqrt(size)
    assert 0 < spread < 0.01
    assert abs(moved.mean().item() - updates * 2**-12) < 6 * spread


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("moments", ["fp32", "bf16"])
def test_accounting_knows_the_bytes_of_a_bank(
    make_config: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
    weights: str,
    moments: str,
) -> None:
    memory = {"type": "ffn", "widths": [3, 2], "weights": weights, "moments": moments}
    config = make_config(memory=memory)
    held = create_bank(config, BankPlace())
    assert held is not None
    bytes_n = [x.nbytes for name, x in held.state().items() if not name.endswith("steps")]
    parameters = sum(table.rows.numel() for table in held.resident().values())
    assert sum(bytes_n) == bank_bytes_per_parameter(config) * parameters
    folder = tmp_path_factory.mktemp("bank")
    files = create_bank(config, BankPlace(folder=folder))
    assert files is not None
    files.roll_back(0)
    size = sum(path.stat().st_size for path in folder.glob("*/rows"))
    assert size == full_bank_disk_bytes(config) >= bank_disk_bytes(config)
