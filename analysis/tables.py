"""Anyone's table: CSV or JSON lines, rows by a condition, columns by name or expression."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.law import Floats, Law
from core.errors import InputError
from core.record import Status


@dataclass(frozen=True)
class Columns:
    """What a law is fitted to."""

    x: dict[str, Floats]
    y: Floats
    left_out: tuple[str, ...]  # why rows are missing, in words


def read_table(path: Path) -> pd.DataFrame:
    """A .csv (a first line that begins with # is a remark) or .jsonl file. InputError if it is
    not one.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    try:
        if path.suffix in (".jsonl", ".json"):
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            return pd.DataFrame(rows)
        with path.open() as file:
            remarks = 1 if file.readline().startswith("#") else 0
        return pd.read_csv(path, skiprows=remarks)
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise InputError(f"{path} is no CSV or JSON-lines table: {error}") from None


def select_rows(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows for which every condition holds, as in `dataset == 'c4' and N > 1e8`."""
    for condition in conditions:
        try:
            frame = frame.query(condition)
        except Exception as error:  # the expression is the user's, and pandas raises many kinds
            raise InputError(f"--where {condition!r} cannot be evaluated: {error}") from None
    return frame


def take_columns(frame: pd.DataFrame, law: Law, x: Sequence[str], y: str) -> Columns:
    """The law's inputs in its order, and y. Runs whose `status` is not done are left out, and
    named.
    """
    if len(x) != len(law.inputs):
        wanted = ", ".join(law.inputs)
        raise InputError(
            f"law '{law.name}' takes {len(law.inputs)} inputs ({wanted}); --x has {len(x)}"
        )
    left_out: tuple[str, ...] = ()
    if "status" in frame.columns:
        bad = ~frame["status"].isin([Status.DONE])
        if bad.any():
            counts = frame.loc[bad, "status"].value_counts().sort_index()
            left_out = tuple(
                f"left out: {n} runs with status {name!r}" for name, n in counts.items()
            )
            frame = frame[~bad]
    inputs = take_inputs(frame, law, x)
    return Columns(inputs, _numbers(frame, y), left_out)


def take_inputs(frame: pd.DataFrame, law: Law, x: Sequence[str]) -> dict[str, Floats]:
    """The law's inputs from columns or expressions x, in its order."""
    return {name: _numbers(frame, column) for name, column in zip(law.inputs, x, strict=True)}


def _numbers(frame: pd.DataFrame, expression: str) -> Floats:
    try:
        column: Any = frame[expression] if expression in frame.columns else frame.eval(expression)
    except Exception as error:  # the expression is the user's, and pandas raises many kinds
        there = ", ".join(map(str, frame.columns))
        raise InputError(
            f"column {expression!r} is neither there nor an expression ({error}); known: {there}"
        ) from None
    try:
        return np.array(np.broadcast_to(np.asarray(column, dtype=float), len(frame)))
    except (TypeError, ValueError):
        raise InputError(f"column {expression!r} holds text; a law needs numbers") from None
