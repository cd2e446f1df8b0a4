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
SIZES_TRIED = 200  # between the smallest and the largest dense model
OUTSIDE, EXTRAPOLATED = "outside the dense range", "extrapolated"  # in the column basis
RULED_OUT = f"{OUTSIDE}: no value, paired dense runs rule out that of the dense fit"
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
    `measure`) if it converged and its value lies between the ends. Low and high are the interval of
    the ratios, one a seed; where a seed's loss lies outside its own dense range, so that it has no
    ratio, they hold the dense sizes that paired differences do not tell from the arm, and an end is
    NaN where dense sizes set no limit. A row without a multiplier has no ends. `seeds` counts those
    with dense runs.
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
    low, high, words, seeds = _ends(group, dense, loss, measure)
    if basis.endswith(EXTRAPOLATED) and (equivalent < low * size or equivalent > high * size):
        equivalent, basis = float("nan"), RULED_OUT
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
        "seeds": seeds,
    }


def _ends(
    group: pd.DataFrame, dense: pd.DataFrame, loss: str, measure: str
) -> tuple[float, float, str, int]:
    """Interval of the multiplier, what it is, and seeds."""
    ratios = []
    for seed, row in group.groupby("seed"):
        own = dense_curve(dense[dense["seed"] == seed], loss, measure)
        equal = own.size_at(float(row[loss].mean())) if own else float("nan")
        ratios.append(equal / float(row[measure].mean()))
    if np.isfinite(ratios).all():
        return *log_interval(np.array(ratios)), len(ratios)
    value_s = group.groupby("seed")[loss].mean()
    dense_sn = dense_by_seed(dense, loss, measure, value_s.index)
    if not len(dense_sn) or dense_sn.shape[1] < 2:
        return float("nan"), float("nan"), "none: fewer than two dense sizes with its seeds", 0
    low, high, words = sizes_not_told(value_s[dense_sn.index].to_numpy(dtype=float), dense_sn)
    size = float(group[measure].mean())
    return low / size, high / size, words, len(dense_sn)


def dense_by_seed(dense: pd.DataFrame, loss: str, measure: str, seeds: pd.Index) -> pd.DataFrame:
    """Loss of dense runs, a row for each of `seeds` that has some and a column for each size in
    `measure` that all of them have, ascending.
    """
    # By model: the tokens of a budget, and so its FLOPs, differ a little from seed to seed.
    table = dense.pivot_table(loss, "seed", "n_anchor").reindex(seeds).dropna(how="all")
    table = table.dropna(axis="columns")
    size_n = dense.groupby("n_anchor")[measure].mean()
    return table.set_axis(size_n[table.columns].to_numpy(dtype=float), axis="columns")


def sizes_not_told(value_s: Floats, dense_sn: pd.DataFrame) -> tuple[float, float, str]:
    """Ends of the dense sizes at which the paired difference to `value_s` [seeds] may be 0, and in
    words what they are; `dense_sn` [seeds, sizes] has a column a size. NaN: no limit on that side.
    """
    known_n = dense_sn.columns.to_numpy(dtype=float)
    size_n = np.geomspace(known_n[0], known_n[-1], SIZES_TRIED)
    curve = PchipInterpolator(np.log(known_n), dense_sn.to_numpy(dtype=float), axis=1)
    summaries = [t_summary(difference_s) for difference_s in value_s - curve(np.log(size_n)).T]
    better_n = np.logical_and.accumulate([high < 0 for _, high, _ in summaries])
    worse_n = np.logical_and.accumulate([low > 0 for low, _, _ in summaries[::-1]])[::-1]
    low = float(size_n[better_n][-1]) if better_n.any() else float("nan")
    high = float(size_n[worse_n][0]) if worse_n.any() else float("nan")
    ends = {"below": low, "above": high}
    unlimited = " and ".join(side for side, end in ends.items() if np.isnan(end))
    return low, high, summaries[0][2] + (f", no limit {unlimited}" if unlimited else "")


def _from_fit(fit: FitResult | None, loss: float, tokens: float) -> tuple[float, str]:
    """The N at which a converged fit has this loss."""
    if fit is None:
        return float("nan"), f"{OUTSIDE}: no value, no law is fitted to dense runs in this measure"
    if not fit.converged:
        return float("nan"), f"{OUTSIDE}: no value, status of the dense fit: {fit.status}"
    size_n = np.geomspace(1e2, 1e13, 4000)
    loss_n = fit.predict({"N": size_n, "D": np.full(size_n.size, tokens)})
    if not loss_n[-1] < loss < loss_n[0]:
        return float("nan"), f"{OUTSIDE}: no dense model of any size reaches this loss by the fit"
    equivalent = np.exp(np.interp(loss, loss_n[::-1], np.log(size_n)[::-1]))
    return float(equivalent), f"{OUTSIDE}: {EXTRAPOLATED}"


def log_interval(ratio_s: Floats) -> tuple[float, float, str]:
    """Interval of a ratio from one value a seed; their range where they are too few."""
    low, high, words = t_summary(np.log(ratio_s))
    return float(np.exp(low)), float(np.exp(high)), words
