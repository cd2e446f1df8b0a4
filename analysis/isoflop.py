"""Compute-optimal size without a full law: minima of iso-FLOP curves, and the envelope of training.

Approaches 2 and 1 of arXiv 2203.15556. A parabola that opens downward, or whose minimum lies at or
beyond the smallest or largest size tried, shows no optimum; such a budget is refused and named.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from analysis.fit import fit
from analysis.law import Floats
from analysis.memory_laws import find_law
from analysis.objectives import find_objective
from analysis.result import FitResult


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
    if len(np.unique(log_n)) < 4:
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
    """One row a budget: flops, size, loss, error, status. Budgets within 5 % are one."""
    budget = np.round(np.log(frame[flops]) / np.log(1.05))
    rows = [
        vars(minimum(float(g[flops].mean()), g[size].to_numpy(float), g[loss].to_numpy(float)))
        for _, g in frame.groupby(budget, sort=True)
    ]
    return pd.DataFrame(rows)


def optimum_law(minima: pd.DataFrame) -> FitResult:
    """`size = k C^p` through the minima that were found, by least squares in log."""
    found = minima[minima["status"] == MinimumStatus.FOUND]
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
    sizes, losses = [], []
    for _, run in curves.groupby("run_id", sort=True):
        log_loss = np.interp(
            np.log(grid), np.log(run["flops"]), np.log(run["loss"]), left=np.nan, right=np.nan
        )
        sizes.append(float(run["n"].iloc[0]))
        losses.append(np.exp(log_loss))
    table = np.where(np.isnan(losses), np.inf, losses)
    best = table.argmin(axis=0)
    size_c = np.array(sizes)[best]
    keep = np.isfinite(table.min(axis=0)) & (size_c > min(sizes)) & (size_c < max(sizes))
    tokens = grid / curves.groupby("n")["flops_per_token"].first().reindex(size_c).to_numpy()
    columns = {"flops": grid, "size": size_c, "loss": table.min(axis=0), "tokens": tokens}
    return pd.DataFrame(columns)[keep].reset_index(drop=True)
