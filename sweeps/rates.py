"""Tuned learning rates: tables that grids produced and others read."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.errors import InputError

# Fields of a run that the table fills.
RATE_KEYS = ("train.lr", "memory.lr")
COLUMNS = ("arm", "anchor", "tokens", "lr", "memory_lr")


@dataclass(frozen=True)
class LearningRates:
    """(arm, anchor, tokens) -> (lr, memory_lr); memory_lr is none where the arm has no memory."""

    paths: tuple[Path, ...]
    rates: dict[tuple[str, str, int], tuple[float, float | None]]
    tokens: int | None = None  # the budget whose rates all runs take; none: each its own

    @classmethod
    def read(cls, paths: Sequence[Path], tokens: int | None = None) -> "LearningRates":
        """Of CSV files, the first that has a point counts. Raises InputError for a missing file,
        column or number.
        """
        rates: dict[tuple[str, str, int], tuple[float, float | None]] = {}
        for path in paths:
            rates = _table(path) | rates
        return cls(tuple(paths), rates, tokens)

    def fill(self, arm: str, config: RunConfig, where: str) -> dict[str, Any]:
        """The rates of a run as nested values. Raises InputError where the table lacks it."""
        anchor = f"{config.anchor.layers}x{config.anchor.d_model}"
        key = (arm, anchor, self.tokens or config.train.tokens)
        if key not in self.rates:
            tables = " and ".join(map(str, self.paths))
            raise InputError(
                f"{where}: no row for arm {arm}, anchor {anchor}, tokens {key[-1]} in {tables}; "
                "tune this point or change the grid"
            )
        lr, memory_lr = self.rates[key]
        memory = {"memory": {"lr": memory_lr}} if config.memory.type != "none" and memory_lr else {}
        return {"train": {"lr": lr}, **memory}


def _table(path: Path) -> dict[tuple[str, str, int], tuple[float, float | None]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {_key(row): _rates(row) for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); tune the rates first") from None
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: {error}; needed are the columns {', '.join(COLUMNS)}, with numbers"
        ) from None


def _key(row: dict[str, str]) -> tuple[str, str, int]:
    return row["arm"], row["anchor"], int(float(row["tokens"]))


def _rates(row: dict[str, str]) -> tuple[float, float | None]:
    memory_lr = row["memory_lr"]
    return float(row["lr"]), float(memory_lr) if memory_lr and memory_lr != "nan" else None
