"""A table in a file is the table in memory, whenever its process dies."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import AnchorConfig
from core.memory.bank import Bank, BankPlace, row_gradients
from core.memory.disk import DiskTable
from core.memory.ffn import FFNMemory
from core.memory.optimizer import RowAdamW
from core.memory.row_format import RowFormat, Rows

ANCHOR = AnchorConfig(layers=1, d_model=4, heads=1, head_dim=2, ffn=3)
N = 6
Batches = list[set[int]]


def make_bank(folder: Path | None, row_format: RowFormat) -> Bank:
    memory = FFNMemory((0,), ANCHOR)
    return Bank(memory, (3, 9), (2, 1), 0, BankPlace(folder=folder), row_format)


def new_table(folder: Path) -> DiskTable:
    """Rows of two values; row i begins as (i, i)."""
    return DiskTable(folder, N, (1, 2), lambda number, block: block.fill_(number), RowFormat())


def train(table: DiskTable, ids: set[int], ahead: set[int] | None = None) -> None:
    """Add 1 to every weight of the rows, and 0.5 and 0.25 to their moments."""
    ids_u = torch.tensor(sorted(ids))
    _, update = table.read(ids_u)
    if ahead is not None:
        table.read_ahead(torch.tensor(sorted(ahead)))
    update(add)


def add(rows: Rows, at_u: torch.Tensor) -> None:
    for part, more in zip(rows.tensors, (1, 0.5, 0.25, 1), strict=True):
        part[at_u] += more


def contents(table: DiskTable) -> dict[str, list[float]]:
    rows = table.kept(torch.arange(N))
    return {name: part.tolist() for name, part in vars(rows).items()}


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_training_is_that_of_a_bank_in_memory(
    tmp_path: Path, weights: torch.dtype, moments: torch.dtype
) -> None:
    """To the bit, with the next batch read ahead, rows in common and rows never met before."""
    row_format = RowFormat(weights, moments)
    memory, disk = make_bank(None, row_format), make_bank(tmp_path, row_format)
    optimizer = RowAdamW(0.9, 0.95, weight_decay=0.1, clip=1.0)
    disk.roll_back(0)
    draw = np.random.default_rng(0)
    paths = [torch.from_numpy(draw.integers(0, (3, 9), size=(4, 2))) for _ in range(12)]
    for step, path_bl in enumerate(paths):
        for bank in (memory, disk):
            fetches = bank.fetch(path_bl)
            if step + 1 < len(paths):
                bank.read_ahead(paths[step + 1])
            for fetch in fetches:
                generator = torch.Generator().manual_seed(step)
                fetch.rows.grad = torch.randn(fetch.rows.shape, generator=generator)
            optimizer.step(row_gradients(fetches), 0.1)
    for level, table in memory.resident().items():
        files = disk.tables[level]
        assert isinstance(files, DiskTable)
        found = files.kept(torch.arange(len(table.rows))).tensors
        for (name, expected), part in zip(table.state().items(), found, strict=True):
            assert torch.equal(part, expected), (level, name)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_table_that_is_done_with_holds_no_file(tmp_path: Path) -> None:
    before = open_files()
    for number in range(3):
        table = new_table(tmp_path / str(number))
        table.roll_back(0)
        train(table, {0})
        table.checkpoint(1, 0)
    assert open_files() > before
    del table
    gc.collect()
    assert open_files() == before


def test_rows_that_were_not_trained_take_no_room(tmp_path: Path) -> None:
    table = DiskTable(tmp_path, 10_000, (1, 1024), lambda _, block: block.fill_(1), RowFormat())
    table.roll_back(0)
    train_one = torch.tensor([5000])
    table.write(train_one, table.kept(train_one))
    table.checkpoint(1, 0)
    stat = (tmp_path / "rows").stat()
    assert stat.st_size == 10_000 * (8 + 3 * 4 * 1024)
    assert stat.st_blocks * 512 < 1e5


@settings(max_examples=60)
@given(
    batches=st.lists(st.sets(st.integers(0, N - 1), min_size=1), min_size=1, max_size=10),
    saves=st.sets(st.integers(1, 9)),
    reads_ahead=st.booleans(),
    data=st.data(),
)
def test_going_back_is_never_having_gone_on(
    tmp_path_factory: pytest.TempPathFactory,
    batches: Batches,
    saves: set[int],
    reads_ahead: bool,
    data: st.DataObject,
) -> None:
    """A process that dies leaves file and journal; the next goes back to any kept checkpoint."""
    folder = tmp_path_factory.mktemp("table")
    table = new_table(folder)
    table.roll_back(0)
    seen = {0: contents(table)}
    for step, ids in enumerate(batches, 1):
        train(table, ids, batches[step] if reads_ahead and step < len(batches) else None)
        if step in saves:
            table.checkpoint(step, oldest=sorted(seen)[-2] if len(seen) > 2 else 0)
            seen[step] = contents(table)
    contents(table)  # what was being written is written
    back = data.draw(st.sampled_from([0, *sorted(seen)[-2:]]))
    after = new_table(folder)
    after.roll_back(back)
    assert contents(after) == seen[back]


def test_an_entry_cut_short_is_of_a_row_that_was_not_overwritten(tmp_path: Path) -> None:
    table = new_table(tmp_path)
    table.roll_back(0)
    train(table, {1, 2})
    table.checkpoint(1, 0)
    expected = contents(table)
    train(table, {1})
    contents(table)
    journal = tmp_path / "journal-000000001"
    with journal.open("ab") as file:
        file.write(b"\1" * 17)
    after = new_table(tmp_path)
    after.roll_back(1)
    assert contents(after) == expected


def test_what_went_wrong_in_writing_is_raised(tmp_path: Path) -> None:
    """A file opened for reading alone stands for a disk that takes no more."""
    table = new_table(tmp_path)
    table.roll_back(0)
    rows = table.kept(torch.tensor([1]))
    table.file = os.open(tmp_path / "rows", os.O_RDONLY)
    table.write(torch.tensor([1]), rows)
    with pytest.raises(OSError, match="Bad file descriptor"):
        table.checkpoint(1, 0)
