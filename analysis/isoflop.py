"""Compute-optimal size without a full law: minima of iso-FLOP curves, and the envelope of training.

Approaches 2 and 1 of arXiv 2203.15556. A parabola that opens downward, or whose minimum lies at or
beyond the smallest or largest size tried, shows no optimum; such a budget is refused and named.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.fit import fit
from analysis.law import Floats
from analysis.memory_laws import find_law
from analysis.objectives import find_objective
from analysis.result import FitResult
from analysis.runs import near

LEAST_SIZES = 4  # of a curve: a parabola and one more
SAME_BUDGET = 1.05  # ratio of FLOPs


class MinimumStatus(StrEnum):
    FOUND = "found"
    TOO_FEW = "fewer than four sizes"
    DOWNWARD = "curve opens downward"
    EDGE = "minimum at or beyond the sizes tried"


@dataclass(frozen=True)
class Minimum:
    """Of one iso-FLOP curve; sizes in parameters, `error` the standard error of log size."""

    flops: float
    size: float
    loss: float
    error: float
    status: MinimumStatus


def minimum(flops: float, size_n: Floats, loss_n: Floats) -> Minimum:
    """Of a parabola in log size, with the standard error that its residuals give (delta method)."""
    log_n = np.log(size_n)
    middle = float(log_n.mean())
    nothing = float("nan")
    if len(np.unique(log_n)) < LEAST_SIZES:
        return Minimum(flops, nothing, nothing, nothing, MinimumStatus.TOO_FEW)
    design = np.vander(log_n - middle, 3)
    coefficients, *_ = np.linalg.lstsq(design, loss_n, rcond=None)
    c2, c1, _ = coefficients
    if c2 <= 0:
        return Minimum(flops, nothing, nothing, nothing, MinimumStatus.DOWNWARD)
    place = -c1 / (2 * c2)
    if not log_n.min() < place + middle < log_n.max():
        return Minimum(flops, nothing, nothing, nothing, MinimumStatus.EDGE)
    residual_n = loss_n - design @ coefficients
    variance = float(residual_n @ residual_n) / max(len(loss_n) - 3, 1)
    covariance = variance * np.linalg.inv(design.T @ design)
    slope = np.array([-place / c2, -1 / (2 * c2), 0.0])
    error = float(np.sqrt(slope @ covariance @ slope))
    loss = float(np.polyval(coefficients, place))
    return Minimum(flops, float(np.exp(place + middle)), loss, error, MinimumStatus.FOUND)


def isoflop_minima(frame: pd.DataFrame, size: str, flops: str, loss: str) -> pd.DataFrame:
    """One row a budget: flops, size, loss, error, status."""
    rows = [
        vars(minimum(float(g[flops].mean()), g[size].to_numpy(float), g[loss].to_numpy(float)))
        for _, g in by_budget(frame, flops)
    ]
    return pd.DataFrame(rows)


def by_budget(frame: pd.DataFrame, flops: str) -> list[tuple[float, pd.DataFrame]]:
    """Mean FLOPs and rows of each budget, ascending; budgets within 5 % are one."""
    groups = frame.groupby(near(frame[flops], SAME_BUDGET), sort=True)
    return [(float(own[flops].mean()), own) for _, own in groups]


def optimum_law(found: pd.DataFrame) -> FitResult:
    """`size = k C^p` through optima (columns flops, size), by least squares in log."""
    x = {"C": found["flops"].to_numpy(dtype=float)}
    return fit(
        find_law("power"), x, found["size"].to_numpy(dtype=float), find_objective("log-squares")
    )


def envelope(curves: pd.DataFrame, budgets: int = 60) -> pd.DataFrame:
    """Approach 1: of all training curves, which run is lowest at each of many FLOP budgets.

    `curves` has run_id, n, flops_per_token, tokens, loss, from runs at a constant learning rate
    or with a schedule of their own per point. Columns: flops, size, loss, tokens; budgets outside
    all curves or won by the smallest or largest size are left out: the optimum may lie beyond
    them.
    """
    curves = curves.assign(flops=curves["flops_per_token"] * curves["tokens"])
    curves = curves[curves["flops"] > 0].sort_values(["run_id", "flops"])
    grid = np.geomspace(curves["flops"].min(), curves["flops"].max(), budgets)
    by_size = {size: _lowest(own, grid) for size, own in curves.groupby("n", sort=True)}
    sizes, loss_sc = np.array(list(by_size)), np.array(list(by_size.values()))
    known_sc = np.isfinite(loss_sc)
    best_c = loss_sc.argmin(axis=0)
    inner_c = np.clip(best_c, 1, max(len(sizes) - 2, 1))
    keep_c = (best_c == inner_c) & np.all([_at(known_sc, inner_c + k) for k in (-1, 0, 1)], axis=0)
    per_token = curves.groupby("n")["flops_per_token"].first().to_numpy()
    size_c, tokens_c = sizes[best_c], grid / per_token[best_c]
    columns = {"flops": grid, "size": size_c, "loss": _at(loss_sc, best_c), "tokens": tokens_c}
    return pd.DataFrame(columns)[keep_c].reset_index(drop=True)


def _lowest(curves: pd.DataFrame, grid: Floats) -> Floats:
    """The lowest loss of the runs of one size at each budget; infinite where none has been."""
    losses = [
        np.interp(np.log(grid), np.log(run["flops"]), np.log(run["loss"]), np.nan, np.nan)
        for _, run in curves.groupby("run_id", sort=True)
    ]
    return np.exp(np.fmin.reduce([np.where(np.isnan(own), np.inf, own) for own in losses]))


def _at(table_sc: NDArray[Any], row_c: NDArray[np.int64]) -> NDArray[Any]:
    """One row a column."""
    return np.take_along_axis(table_sc, row_c[None, :], axis=0)[0]
