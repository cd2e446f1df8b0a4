"""What a fit says: parameters, and how far they can be trusted. Frozen."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from analysis.digits import significant
from analysis.law import Floats, Law, Table
from analysis.objectives import Objective
from core.writing import write_text

CONDITION_DIGITS = 3  # rounding of the Jacobian is in the others where it is large


class FitStatus(StrEnum):
    """Everything but CONVERGED is a warning."""

    CONVERGED = "converged"
    NOT_CONVERGED = "not converged"
    NOT_ENOUGH_DATA = "not enough data"
    FLAT = "flat direction"
    AT_BOUND = "at a bound"
    STARTS_DISAGREE = "starts disagree"
    DUPLICATED_ROWS = "duplicated rows"
    UNSTABLE = "unstable"  # refits of resampled rows do not converge


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    level: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an end that is not finite becomes null."""
        ends = {"low": _plain(self.low), "high": _plain(self.high)}
        return ends | {"level": self.level, "method": self.method}


@dataclass(frozen=True)
class FitResult:
    """One law fitted to one table. `parameters` are NaN where the data were too few to fit at
    all.
    """

    law: Law
    objective: Objective
    theta: Floats  # fitted coordinates, see laws.py
    parameters: Mapping[str, float]
    value: float  # objective as the plain sum over rows
    status: FitStatus
    reason: str  # why the status is not `converged`, or empty
    notes: tuple[str, ...]  # what else a reader should know
    n: int
    configurations: int
    starts: int
    agreeing: int  # starts that reached the reported minimum
    gradient: float  # largest slope of the scaled objective that is left
    condition: float  # of the Jacobian, columns scaled to one length
    residuals: Floats  # [n], in the objective's unit
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        return self.status is FitStatus.CONVERGED

    @property
    def usable(self) -> bool:
        """Whether there is a curve at all."""
        return bool(np.isfinite(self.theta).all())

    def predict(self, x: Table) -> Floats:
        """Predicted loss [n] at the inputs x."""
        return self.law.curve(
            self.parameters, {k: np.asarray(v, dtype=float) for k, v in x.items()}
        )

    def describe(self) -> str:
        """Status, and why, in one phrase."""
        return f"{self.status}: {self.reason}" if self.reason else str(self.status)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that are not finite become null."""
        intervals = {name: own.to_dict() for name, own in self.intervals.items()}
        return {
            "law": self.law.name,
            "formula": self.law.formula,
            "source": self.law.source,
            "inputs": list(self.law.inputs),
            "parameters": {name: _plain(value) for name, value in self.parameters.items()},
            "units": dict(self.law.units),
            "objective_name": self.objective.name,
            "delta": _plain(self.objective.delta),
            "objective": _plain(self.value),
            "status": str(self.status),
            "reason": self.reason,
            "notes": list(self.notes),
            "n": self.n,
            "configurations": self.configurations,
            "starts": self.starts,
            "agreeing": self.agreeing,
            "gradient": _plain(self.gradient),
            "condition": _plain(significant(self.condition, CONDITION_DIGITS)),
            "residuals": [_plain(r) for r in self.residuals],
            "intervals": intervals,
        }

    def write(self, path: Path, **more: Any) -> None:
        """fit.json, with what else is known of the fit."""
        write_text(path, json.dumps(self.to_dict() | more, indent=2) + "\n")


def _plain(value: float) -> float | None:
    return significant(float(value)) if math.isfinite(value) else None
