"""Differences in loss, seed by seed: between arms at equal size, and within a run between keys."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.law import Floats
from analysis.multiplier import dense_curve, dense_runs, packed_like
from analysis.seeds import POINT, pooled, smallest_detectable, t_summary

EQUAL_RUNTIME = "dense at equal runtime"
EQUAL = ["anchor", "n_fetched", "tokens"]  # in arms that are compared
# Within a run: the path of another window, and no memory, against the right path.
CONTROLS = {
    "shuffled path minus prefix path": ("shuffled", "prefix"),
    "shuffled path minus document path": ("shuffled", "document"),
    "memory off minus prefix path": ("off", "prefix"),
}


def paired_differences(runs: pd.DataFrame, arm: str, against: str, loss: str) -> pd.DataFrame:
    """Loss of `arm` minus that of `against`, seed by seed, at equal anchor, tokens and M.

    `against` is an arm's name, or EQUAL_RUNTIME: the same seed's dense curve at N + M.
    Columns: POINT, against, difference, low, high, interval, seeds, detectable, by_seed,
    packed_alike: whether one tree packed the training text of both, as is fair; at equal runtime
    only dense runs that are packed alike are used where there are any.
    `detectable` is the smallest true difference that this many seeds would have shown (5 % level,
    80 % power), from the seeds' spread pooled over the sizes; NaN where nothing was repeated.
    """
    runs = runs[runs[loss].notna()]
    points, alike = [], []
    for point, group in runs[runs["arm"] == arm].groupby(POINT, sort=True):
        others = _others(runs, group.iloc[0], against)
        if len(values := _between_arms(group, others, against, loss)):
            points.append((point, values))
            alike.append(bool(packed_like(others, group.iloc[0]).all()))
    return _table(points, against).assign(packed_alike=alike)


def control_differences(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """CONTROLS of every arm with a path, within each run; columns as `paired_differences`.

    Where a path changes nothing at all, there is none to shuffle: no row.
    """
    routed = runs[runs["n_bank"] > runs["n_fetched"]]
    tables = []
    for words, (key, right) in CONTROLS.items():
        for _, own in routed.groupby("arm", sort=True):
            difference = own[f"loss_{split}_{key}"] - own[f"loss_{split}_{right}"]
            known = own.assign(value=difference)[difference.notna() & bool(difference.ne(0).any())]
            points = (
                (point, group.groupby("seed")["value"].mean().to_numpy(dtype=float))
                for point, group in known.groupby(POINT, sort=True)
            )
            tables.append(_table(points, words))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _table(points: Iterable[tuple[Any, Floats]], against: str) -> pd.DataFrame:
    """A row a point that has values; the spread is pooled over all of them."""
    known = [(point, values) for point, values in points if len(values)]
    spread, free = pooled([values for _, values in known])
    return pd.DataFrame([_row(point, against, values, spread, free) for point, values in known])


def _row(point: Any, against: str, values: Floats, spread: float, free: int) -> dict[str, Any]:
    low, high, words = t_summary(values)
    return dict(zip(POINT, point, strict=True)) | {
        "against": against,
        "difference": float(values.mean()),
        "low": low,
        "high": high,
        "interval": words,
        "seeds": len(values),
        "detectable": smallest_detectable(spread, len(values), free),
        "by_seed": " ".join(f"{value:+.4f}" for value in values),
    }


def _others(runs: pd.DataFrame, point: pd.Series, against: str) -> pd.DataFrame:
    """What a point is compared with: dense runs, or those of an arm with its anchor and M."""
    if against == EQUAL_RUNTIME:
        return dense_runs(runs, point)
    equal = (runs[EQUAL] == point[EQUAL]).all(axis=1)
    return runs[equal & (runs["arm"] == against)]


def _between_arms(group: pd.DataFrame, others: pd.DataFrame, against: str, loss: str) -> Floats:
    n_runtime, of_seed = float(group["n_runtime"].iloc[0]), group.groupby("seed")[loss].mean()
    same_seed = [others[others["seed"] == seed] for seed in of_seed.index]
    if against == EQUAL_RUNTIME:
        curves = [dense_curve(runs, loss, "n_runtime") for runs in same_seed]
        theirs = [curve.loss_at(n_runtime) if curve else float("nan") for curve in curves]
    else:
        theirs = [float(runs[loss].mean()) for runs in same_seed]
    values = of_seed.to_numpy(dtype=float) - np.array(theirs)
    return values[np.isfinite(values)]
