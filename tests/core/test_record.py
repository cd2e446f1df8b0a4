"""One schema: what is written is what is read, with its units."""

import math
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from core.errors import InputError
from core.record import (
    COLUMNS,
    INCIDENTAL,
    KEYS,
    MEANINGS,
    UNITS,
    RunRecord,
    from_row,
    read_runs,
    to_frame,
    write_runs,
)

RECORD = RunRecord(
    run_id="00e1",  # must not become a number
    grid="quick",
    arm="ffn",
    widths="16-4",
    seed=3,
    lr=0.1 + 0.2,
    n_anchor=189_000,
    tokens=1_000_000,
    loss_test_prefix=4.7,
)


def same(a: RunRecord, b: RunRecord) -> bool:
    """Equal, NaN being equal to NaN."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in COLUMNS]
    return all(x == y or (x != x and y != y) for x, y in pairs)


def test_survives_the_csv_to_the_bit(tmp_path: Path) -> None:
    diverged = RunRecord(run_id="aa", status="diverged", cause="loss 9, limit 8")
    write_runs(to_frame([RECORD, diverged]), tmp_path / "runs.csv")
    rows = read_runs(tmp_path / "runs.csv").to_dict("records")
    assert same(from_row(rows[0]), RECORD)
    assert same(from_row(rows[1]), diverged)


def test_columns_are_explained(tmp_path: Path) -> None:
    write_runs(to_frame([RECORD]), tmp_path / "runs.csv")
    header = pd.read_csv(tmp_path / "columns.csv")
    assert list(header.column) == list(COLUMNS)
    assert header.unit.notna().all()
    assert header.meaning.notna().all()
    assert all(UNITS[name] and MEANINGS[name] for name in COLUMNS)


def test_an_older_table_without_a_column_still_reads() -> None:
    row = to_frame([RECORD]).drop(columns=["agreement_leaf", "cause"]).to_dict("records")[0]
    record = from_row(row)
    assert math.isnan(record.agreement_leaf)
    assert record.cause == ""


def test_an_older_table_reads_as_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    to_frame([RECORD]).drop(columns=["agreement_leaf", "cause"]).to_csv(path, index=False)
    frame = read_runs(path)
    assert list(frame.columns) == list(COLUMNS)
    assert frame.cause.tolist() == [""]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of runs"):
        read_runs(path)


def test_every_loss_has_its_columns() -> None:
    for split, keys in KEYS.items():
        for key in (*keys, "whole"):
            assert f"loss_{split}_{key}" in COLUMNS
            assert f"bpb_{split}_{key}" in COLUMNS
    assert set(INCIDENTAL) <= {field.name for field in fields(RunRecord)}
