"""Differences in loss, seed by seed: between arms at equal size, and within a run between keys."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.law import Floats
from analysis.multiplier import dense_curve
from analysis.seeds import POINT, pooled, smallest_detectable, t_summary

EQUAL_RUNTIME = "dense at equal runtime"
# Within a run: the path of another window, and no memory, against the right path.
CONTROLS = {
    "shuffled path minus prefix path": ("shuffled", "prefix"),
    "shuffled path minus document path": ("shuffled", "document"),
    "memory off minus prefix path": ("off", "prefix"),
}


def paired_differences(runs: pd.DataFrame, arm: str, against: str, loss: str) -> pd.DataFrame:
    """Loss of `arm` minus that of `against`, seed by seed, at equal anchor, tokens and M.

    `against` is an arm's name, or EQUAL_RUNTIME: the same seed's dense curve at N + M.
    Columns: POINT, against, difference, low, high, interval, seeds, detectable, by_seed.
    `detectable` is the smallest true difference that this many seeds would have shown (5 % level,
    80 % power), from the seeds' spread pooled over the sizes; NaN where nothing was repeated.
    """
    runs = runs[runs[loss].notna()]
    points = (
        (point, _between_arms(group, runs, against, loss))
        for point, group in runs[runs["arm"] == arm].groupby(POINT, sort=True)
    )
    return _table(points, against)


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


def _between_arms(group: pd.DataFrame, runs: pd.DataFrame, against: str, loss: str) -> Floats:
    here = runs[runs["tokens"] == group["tokens"].iloc[0]]
    of_seed = group.groupby("seed")[loss].mean()
    others = [_other(group.iloc[0], here[here["seed"] == s], against, loss) for s in of_seed.index]
    values = of_seed.to_numpy(dtype=float) - np.array(others)
    return values[np.isfinite(values)]


def _other(point: Any, same_seed: pd.DataFrame, against: str, loss: str) -> float:
    """The loss that one seed of a point is compared with; NaN where there is none."""
    if against == EQUAL_RUNTIME:
        curve = dense_curve(same_seed, loss, "n_runtime")
        return curve.loss_at(float(point["n_runtime"])) if curve else float("nan")
    alike = (same_seed[["anchor", "n_fetched"]] == point[["anchor", "n_fetched"]]).all(axis=1)
    return float(same_seed.loc[alike & (same_seed["arm"] == against), loss].mean())
