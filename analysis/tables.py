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

# Of a run that came to its end, here and with other trackers.
FINISHED = {str(Status.DONE), "finished", "completed", "success", "ok"}


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
    """The law's inputs in its order, and y. Runs whose `status` says that they did not
    finish are left out, and named.
    """
    if len(x) != len(law.inputs):
        wanted = ", ".join(law.inputs)
        raise InputError(
            f"law '{law.name}' takes {len(law.inputs)} inputs ({wanted}); --x has {len(x)}"
        )
    finished, left_out = _finished(frame)
    return Columns(take_inputs(finished, law, x), _numbers(finished, y), left_out)


def _finished(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rows that no column `status` speaks against, and what was left out, in words."""
    if "status" not in frame.columns:
        return frame, ()
    status = frame["status"].astype(str)
    bad = ~status.str.lower().isin(FINISHED)
    counts = status[bad].value_counts().sort_index()
    left_out = tuple(f"left out: {n} runs with status {name!r}" for name, n in counts.items())
    if len(frame) and bad.all():
        words, allowed = "; ".join(left_out), ", ".join(sorted(FINISHED))
        raise InputError(f"{words}; kept are {allowed}: rename the status, or the column")
    return frame[~bad], left_out


def take_inputs(frame: pd.DataFrame, law: Law, x: Sequence[str]) -> dict[str, Floats]:
    """The law's inputs from columns or expressions x, in its order."""
    return {name: _numbers(frame, column) for name, column in zip(law.inputs, x, strict=True)}


def _numbers(frame: pd.DataFrame, expression: str) -> Floats:
    whole = frame.select_dtypes("integer").columns
    floats = frame.astype(dict.fromkeys(whole, float))  # N * D of whole numbers would overflow
    try:
        column: Any = floats[expression] if expression in frame.columns else floats.eval(expression)
    except Exception as error:  # the expression is the user's, and pandas raises many kinds
        there = ", ".join(map(str, frame.columns))
        raise InputError(
            f"column {expression!r} is neither there nor an expression ({error}); known: {there}"
        ) from None
    try:
        return np.array(np.broadcast_to(np.asarray(column, dtype=float), len(frame)))
    except (TypeError, ValueError):
        raise InputError(f"column {expression!r} holds text; a law needs numbers") from None
