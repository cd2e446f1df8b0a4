"""Findings of others, tried on our runs: confirmed, refuted or undecided.

A file of claims is a YAML list. Each names the finding, what was published, a grid, the rows of one
of its tables, and the side of a bound on which their value should lie:

    - finding: routed memory beats generic memory of its size
      published: perplexity 16.7 to 14.2 (table 1)
      grid: routing-gain
      table: differences
      rows: {arm: ffn, against: generic, key: prefix}
      below: 0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from core.errors import InputError

VALUES = {
    "differences": "difference",
    "controls": "difference",
    "facts": "difference",
    "fact_differences": "difference",
    "multipliers": "multiplier",
}
FIELDS = {"finding", "published", "grid", "table", "rows"}
SIDES = {"below": -1, "above": 1}
NOT_RUN, UNDECIDED, CONFIRMED, REFUTED = "not run", "undecided", "confirmed", "refuted"


@dataclass(frozen=True)
class Claim:
    finding: str
    published: str
    grid: str
    table: str  # a key of VALUES
    rows: Mapping[str, Any]  # column to value
    side: str  # of the bound: a key of SIDES
    bound: float


@dataclass(frozen=True)
class Verdict:
    """A claim, our rows (anchor, value, low, high, interval, seeds), and what they say of it."""

    claim: Claim
    ours: pd.DataFrame
    word: str


def load_claims(path: Path) -> list[Claim]:
    """Raises InputError for a list that is none, a key that is unknown or a table that is."""
    listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(listed, list):
        raise InputError(f"{path}: not a list; see analysis/claims.py for what it holds")
    return [_claim(given, f"{path}: claim {number}") for number, given in enumerate(listed, 1)]


def _claim(given: Any, where: str) -> Claim:
    keys = set(given) if isinstance(given, dict) else set()
    sides = keys & set(SIDES)
    if keys - sides != FIELDS or len(sides) != 1:
        raise InputError(f"{where}: needs {', '.join(sorted(FIELDS))}, and below or above")
    if given["table"] not in VALUES:
        raise InputError(f"{where}: table '{given['table']}'; choose one of: {', '.join(VALUES)}")
    side = sides.pop()
    return Claim(**{name: given[name] for name in FIELDS}, side=side, bound=float(given[side]))


def judge(claim: Claim, tables: Mapping[str, pd.DataFrame] | None) -> Verdict:
    """`tables` of the claim's grid by name; None where it was not run.

    Confirmed where every interval lies on the claimed side of the bound, refuted where every one
    lies on the other. Raises InputError for a column that the table lacks.
    """
    value = VALUES[claim.table]
    if tables is None or claim.table not in tables:
        return Verdict(claim, pd.DataFrame(), NOT_RUN)
    found = _select(tables[claim.table], claim)
    ours = found.rename(columns={value: "value"})
    if ours.empty:
        return Verdict(claim, ours, NOT_RUN)
    return Verdict(claim, ours, _word(ours, SIDES[claim.side], claim.bound))


def _select(table: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    for column, wanted in claim.rows.items():
        if column not in table:
            raise InputError(f"claim '{claim.finding}': {claim.table} has no column '{column}'")
        table = table[table[column] == wanted]
    return table


def _word(ours: pd.DataFrame, sign: int, bound: float) -> str:
    if not ours["interval"].str.startswith("95 %").all():
        return UNDECIDED  # too few seeds
    near, far = ("low", "high") if sign > 0 else ("high", "low")
    if (sign * (ours[near] - bound) > 0).all():
        return CONFIRMED
    return REFUTED if (sign * (ours[far] - bound) < 0).all() else UNDECIDED
