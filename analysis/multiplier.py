"""What an arm is worth: the size of the dense model that reaches the same loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from analysis.law import Floats
from analysis.result import FitResult
from analysis.seeds import POINT, t_summary

DENSE = "none"  # memory_type
# What a multiplier can be counted in: column, and words.
MEASURES = {
    "n_runtime": "runtime parameters",
    "train_flops": "training FLOPs",
    "bytes_held": "bytes held at inference",
}
BYTES_BF16 = 2
TEXT = ["tokens", "epochs"]  # how much was trained on, and how often it came again
PACKING = ["embedder", "branching", "training_key"]  # of a tree, which orders the training text


def with_bytes_held(runs: pd.DataFrame) -> pd.DataFrame:
    """Adds `bytes_held`: anchor, embeddings and the whole bank, in bf16."""
    held = BYTES_BF16 * (runs["n_anchor"] + runs["n_embed"] + runs["n_bank"])
    return runs.assign(bytes_held=held)


@dataclass(frozen=True)
class DenseCurve:
    """Loss of dense runs against a measure of size, non-increasing, joined by monotone cubics."""

    size_n: Floats  # ascending
    loss_n: Floats  # means over seeds

    def inside(self, loss: float) -> bool:
        return bool(self.loss_n[-1] <= loss <= self.loss_n[0])

    def size_at(self, loss: float) -> float:
        """The dense size with this loss; NaN outside the range."""
        if not self.inside(loss):
            return float("nan")
        distinct = np.concatenate([[True], np.diff(self.loss_n) < 0])
        loss_n, log_n = self.loss_n[distinct][::-1], np.log(self.size_n[distinct])[::-1]
        if len(loss_n) < 2:
            return float("nan")
        return float(np.exp(PchipInterpolator(loss_n, log_n)(loss)))

    def loss_at(self, size: float) -> float:
        """The loss of a dense model of this size; NaN outside the range."""
        if len(self.size_n) < 2 or not self.size_n[0] <= size <= self.size_n[-1]:
            return float("nan")
        return float(PchipInterpolator(np.log(self.size_n), self.loss_n)(np.log(size)))


def dense_curve(runs: pd.DataFrame, loss: str, measure: str) -> DenseCurve | None:
    """Seed means of the dense runs, made monotone; None with fewer than two sizes."""
    dense = runs[(runs["memory_type"] == DENSE) & runs[loss].notna()]
    # By model: the tokens of a budget, and so its FLOPs, differ a little from seed to seed.
    models = dense.assign(size=dense[measure]).groupby("n_anchor")[["size", loss]].mean()
    if len(models) < 2:
        return None
    models = models.sort_values("size", kind="stable")
    monotone = isotonic_regression(models[loss].to_numpy(), increasing=False).x
    return DenseCurve(models["size"].to_numpy(dtype=float), np.asarray(monotone))


def packed_like(runs: pd.DataFrame, point: pd.Series) -> pd.Series:
    """Whether runs had their rows packed by the tree of `point`.

    The packing alone moves the loss: by 0.03 to 0.04 nats in the grid controls.
    """
    return (runs[PACKING] == point[PACKING]).all(axis=1)


def dense_runs(runs: pd.DataFrame, point: pd.Series) -> pd.DataFrame:
    """Those of a point's text: packed as it is where there are such, all otherwise."""
    dense = runs[(runs["memory_type"] == DENSE) & (runs[TEXT] == point[TEXT]).all(axis=1)]
    alike = packed_like(dense, point)
    return dense[alike] if alike.any() else dense


def multipliers(
    runs: pd.DataFrame, loss: str, measure: str = "n_runtime", fit: FitResult | None = None
) -> pd.DataFrame:
    """Dense-equivalent multiplier of each augmented point, at its own number of tokens.

    Columns: POINT, loss, size, equivalent, multiplier, low, high, interval, basis, seeds.
    Equivalent and size are in `measure`; multiplier = equivalent / size. Outside the dense range
    the value comes from `fit` (a law in N alone or in N and D, fitted to the dense runs in
    `measure`) if it converged. Low and high are over the seeds that lie inside their own dense
    range, which `seeds` counts; where others do not, `interval` says so. A row without a multiplier
    has no ends.
    """
    runs = with_bytes_held(runs[runs[loss].notna()])
    rows = []
    for point, group in runs[runs["memory_type"] != DENSE].groupby(POINT, sort=True):
        dense = dense_runs(runs, group.iloc[0])
        rows.append(
            dict(zip(POINT, point, strict=True)) | _multiplier(group, dense, loss, measure, fit)
        )
    return pd.DataFrame(rows)


def _multiplier(
    group: pd.DataFrame, dense: pd.DataFrame, loss: str, measure: str, fit: FitResult | None
) -> dict[str, Any]:
    mean, size = float(group[loss].mean()), float(group[measure].mean())
    curve = dense_curve(dense, loss, measure)
    equivalent = curve.size_at(mean) if curve else float("nan")
    basis = "interpolated"
    if not np.isfinite(equivalent):
        equivalent, basis = _from_fit(fit, mean, float(group["tokens"].iloc[0]))
    ratios = []
    for seed, row in group.groupby("seed"):
        own = dense_curve(dense[dense["seed"] == seed], loss, measure)
        equal = own.size_at(float(row[loss].mean())) if own else float("nan")
        ratios.append(equal / float(row[measure].mean()))
    ratio_s = np.array(ratios)
    low, high, words = log_interval(ratio_s)
    if not np.isfinite(equivalent):
        low, high, words = float("nan"), float("nan"), "none: no multiplier"
    return {
        "loss": mean,
        "size": size,
        "equivalent": equivalent,
        "multiplier": equivalent / size,
        "low": low,
        "high": high,
        "interval": words,
        "basis": basis,
        "seeds": int(np.isfinite(ratio_s).sum()),
    }


def _from_fit(fit: FitResult | None, loss: float, tokens: float) -> tuple[float, str]:
    """The N at which a converged fit has this loss."""
    where = "outside the dense range"
    if fit is None:
        return float("nan"), f"{where}: no value, no law is fitted to dense runs in this measure"
    if not fit.converged:
        return float("nan"), f"{where}: no value, status of the dense fit: {fit.status}"
    size_n = np.geomspace(1e2, 1e13, 4000)
    loss_n = fit.predict({"N": size_n, "D": np.full(size_n.size, tokens)})
    if not loss_n[-1] < loss < loss_n[0]:
        return float("nan"), f"{where}: no dense model of any size reaches this loss by the fit"
    return float(
        np.exp(np.interp(loss, loss_n[::-1], np.log(size_n)[::-1]))
    ), f"{where}: extrapolated"


def log_interval(ratio_s: Floats) -> tuple[float, float, str]:
    """Interval of a ratio from one value a seed, NaN for one outside its own dense range; the range
    of the ratios where they are too few.
    """
    known_s = ratio_s[np.isfinite(ratio_s)]
    if len(known_s) == 0:
        return float("nan"), float("nan"), "none: no seed lies inside its own dense range"
    low, high, words = t_summary(np.log(known_s))
    if lost := len(ratio_s) - len(known_s):
        words += f"; {lost} of {len(ratio_s)} seeds outside the dense range"
    return float(np.exp(low)), float(np.exp(high)), words
